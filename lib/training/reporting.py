"""How a run shows that it is alive. Notebooks pass ``lib.display.progress.LiveCurve()`` instead."""

import os
import sys
from typing import Protocol

from tqdm.auto import tqdm

from lib.training.history import History


class Reporter(Protocol):
    """What the loop tells while it runs."""

    def update(self, history: History, total: int) -> None:
        """Called after every step; ``total`` is the run's number of steps."""

    def close(self) -> None:
        """Called at the end, also after an error."""


class ProgressLine:
    """One tqdm line; silent under CI and where standard error is neither terminal nor notebook."""

    def __init__(self):
        """The line appears with the first step."""
        self._bar = None

    def update(self, history: History, total: int) -> None:
        """Move to the last step of ``history``."""
        row = history.steps[-1]
        if self._bar is None:
            # The bar starts where a resumed run starts, so that its rate is right.
            self._bar = tqdm(total=total, initial=row["step"] - 1, unit="step", disable=_silent())
        shown = {"loss": f"{row['total']:.4f}"}
        if history.validations:
            shown[history.score] = f"{history.validations[-1][history.score]:.4f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(row["step"] - self._bar.n)

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()


def _silent() -> bool:
    return bool(os.environ.get("CI")) or not ("ipykernel" in sys.modules or sys.stderr.isatty())
