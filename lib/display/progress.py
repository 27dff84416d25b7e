"""A training run watched from a notebook: one line, and under it the curve as it grows."""

import io
import os
import sys
import time
from typing import Any

from matplotlib.figure import Figure
from tqdm.auto import tqdm

from lib.display.charts import running_mean
from lib.display.style import BLUE, ORANGE, WIDTH


class LiveCurve:
    """Loss and validation score, redrawn every few seconds; ``fit(..., progress=LiveCurve())``.

    In a notebook the curve is drawn under a progress line. In a terminal there is the line alone.
    Under CI (environment variable CI) there is neither, so that executed notebooks do not hold
    seconds and rates: draw the finished run with ``loss_curves``.
    """

    def __init__(self, *, every: float = 2.0, logarithmic: bool = False):
        """Redraw at most once in ``every`` seconds, with the loss on a logarithmic axis or not."""
        self.every, self.logarithmic = every, logarithmic
        self._forget()

    def update(self, history: Any, total: int) -> None:
        """Show ``history`` (``lib.training.history.History``) of a run of ``total`` steps."""
        if os.environ.get("CI"):
            return
        row = history.steps[-1]
        notebook = "ipykernel" in sys.modules
        if self._bar is None:
            hidden = not (notebook or sys.stderr.isatty())
            self._bar = tqdm(total=total, initial=row["step"] - 1, unit="step", disable=hidden)
        self._bar.set_postfix(loss=f"{row['total']:.4f}", refresh=False)
        self._bar.update(row["step"] - self._bar.n)
        self._last = (history, total)
        if notebook and time.monotonic() - self._drawn > self.every:
            self._draw()

    def close(self) -> None:
        """Draw the last state and let the line stand; a next run gets a line of its own."""
        if self._display is not None:
            self._draw()
        if self._bar is not None:
            self._bar.close()
        self._forget()

    def _forget(self) -> None:
        self._bar, self._display = None, None
        self._drawn = -float("inf")
        self._last: tuple[Any, int] | None = None

    def _draw(self) -> None:
        from IPython.display import Image, display

        history, total = self._last
        picture = io.BytesIO()
        _figure(history, total, self.logarithmic).savefig(picture, format="png", dpi=80)
        image = Image(data=picture.getvalue())
        if self._display is None:
            self._display = display(image, display_id=True)
        else:
            self._display.update(image)
        self._drawn = time.monotonic()


def _figure(history: Any, total: int, logarithmic: bool) -> Figure:
    """Total loss of each step, its running mean, validation scores; pyplot is not involved."""
    steps = [row["step"] for row in history.steps]
    losses = [row["total"] for row in history.steps]
    figure = Figure(figsize=(0.7 * WIDTH, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color=BLUE, alpha=0.25, linewidth=0.8)
    axes.plot(steps, running_mean(losses, width=20), color=BLUE)
    axes.set(xlim=(0, total), xlabel="step", yscale="log" if logarithmic else "linear")
    axes.set_ylabel("loss", color=BLUE)
    if history.validations:
        right = axes.twinx()
        at = [row["step"] for row in history.validations]
        scores = [row[history.score] for row in history.validations]
        right.plot(at, scores, "o-", color=ORANGE, markersize=4)
        right.set(ylim=(0, 1))
        right.set_ylabel(f"validation {history.score}", color=ORANGE)
    return figure
