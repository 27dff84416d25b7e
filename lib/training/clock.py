"""The time that a run has had, over all its interruptions."""

import time


class Clock:
    """Counts wall and CPU time of this process towards a budget of `minutes`.

    The time before an interruption is put back by `load_state_dict`; time after the last
    checkpoint is lost with the steps that were lost.
    """

    def __init__(self, minutes: float, *, cpu_time: bool = False):
        """Start counting.

        Args:
            minutes: the budget. cpu_time: spend it in CPU time, for runs that are compared on a
                machine with other work on it; False by the wall clock.

        Raises:
            ValueError: if the budget is not positive.
        """
        if minutes <= 0:
            raise ValueError(f"minutes must be positive, got {minutes}")
        self.budget, self._by_cpu = 60.0 * minutes, cpu_time
        self.load_state_dict({"seconds": 0.0, "cpu_seconds": 0.0})

    @property
    def seconds(self) -> float:
        """Wall seconds so far."""
        return self._before["seconds"] + time.monotonic() - self._began

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of this process so far, without those of its workers."""
        return self._before["cpu_seconds"] + time.process_time() - self._began_cpu

    @property
    def spent(self) -> float:
        """Seconds that count towards the budget."""
        return self.cpu_seconds if self._by_cpu else self.seconds

    @property
    def fraction(self) -> float:
        """Share of the budget that is used up, at most 1."""
        return min(self.spent / self.budget, 1.0)

    def state_dict(self) -> dict[str, float]:
        """Both times so far."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from the times that `state_dict` returned."""
        self._before = dict(state)
        self._began, self._began_cpu = time.monotonic(), time.process_time()
