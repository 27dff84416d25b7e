"""A training run watched from a notebook: one line, and under it the curve as it grows."""

import io
import os
import sys
import time
from typing import Any

from matplotlib.figure import Figure
from tqdm.auto import tqdm


class LiveCurve:
    """Loss and validation score, redrawn every few seconds; ``fit(..., progress=LiveCurve())``.

    In a notebook the curve is drawn under a progress line. In a terminal there is the line alone.
    Under CI (environment variable CI) there is neither, so that executed notebooks do not hold
    seconds and rates. The last curve stays; ``loss_curve`` draws the same for a fixed figure.
    """

    def __init__(self, *, every: float = 2.0, logarithmic: bool = False):
        """Redraw at most once in ``every`` seconds, with the loss on a logarithmic axis or not."""
        self.every, self.logarithmic = every, logarithmic
        self._bar, self._display = None, None
        self._drawn = -float("inf")
        self._last: tuple[Any, int] | None = None

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
        """Draw the last state and let the line stand."""
        if self._display is not None:
            self._draw()
        if self._bar is not None:
            self._bar.close()

    def _draw(self) -> None:
        from IPython.display import Image, display

        history, total = self._last
        picture = io.BytesIO()
        figure = loss_curve(history, total=total, logarithmic=self.logarithmic)
        figure.savefig(picture, format="png", dpi=90)
        image = Image(data=picture.getvalue())
        if self._display is None:
            self._display = display(image, display_id=True)
        else:
            self._display.update(image)
        self._drawn = time.monotonic()


def loss_curve(history: Any, *, total: int | None = None, logarithmic: bool = False) -> Figure:
    """The total loss of each step, its running mean, and the validation score if there is one.

    Args:
        history: ``lib.training.history.History`` with at least one step.
        total: steps of the whole run, the end of the axis; by default those done.
        logarithmic: whether the loss has a logarithmic axis.
    """
    steps = [row["step"] for row in history.steps]
    losses = [row["total"] for row in history.steps]
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=0.8)
    axes.plot(steps, _running_mean(losses), color="tab:blue", label="loss")
    axes.set(xlim=(0, total or steps[-1]), xlabel="step", ylabel="loss")
    if logarithmic:
        axes.set_yscale("log")
    if history.validations:
        right = axes.twinx()
        scores = [row[history.score] for row in history.validations]
        at = [row["step"] for row in history.validations]
        right.plot(at, scores, "o-", color="tab:orange", markersize=3, label=history.score)
        right.set_ylabel(f"validation {history.score}", color="tab:orange")
        right.set_ylim(0, 1)
    axes.yaxis.label.set_color("tab:blue")
    return figure


def _running_mean(values: list[float], weight: float = 0.9) -> list[float]:
    """Exponential running mean, corrected for its start (as in Adam)."""
    means, mean = [], 0.0
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1 - weight) * value
        means.append(mean / (1 - weight**count))
    return means
