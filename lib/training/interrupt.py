"""Stopping between two steps instead of in the middle of one."""

import signal
import sys
import threading
from types import FrameType


class StopRequest:
    """Turns the first Ctrl-C (or a cluster's SIGTERM) into a request that the loop sees.

    A signal in the middle of a step would leave weights, optimisers and averages out of step with
    each other. A second signal has its usual effect at once. Outside the main thread, where Python
    delivers no signals, nothing is changed.
    """

    def __init__(self):
        """No request yet."""
        self.requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        print("Stopping after this step; once more stops at once.", file=sys.stderr)
        self.__exit__()
