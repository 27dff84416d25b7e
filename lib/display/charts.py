"""Numbers as charts: loss curves, bars with errors, curves over a budget."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lib.display import style


def loss_curves(
    steps: Sequence[float],
    losses: Mapping[str, Sequence[float]],
    *,
    smooth: int = 1,
    log: bool = False,
) -> Figure:
    """One line a loss over the training steps.

    With ``smooth`` > 1 the mean of the last ``smooth`` steps is drawn, and the values themselves
    faintly behind it. NaN marks a step in which a loss was not computed.
    """
    if smooth < 1:
        raise ValueError(f"smooth={smooth}: expected a number of steps >= 1")
    figure, ax = plt.subplots(layout="constrained")
    for colour, (name, values) in _coloured(losses):
        ax.plot(steps, running_mean(values, smooth), color=colour, label=name)
        if smooth > 1:
            ax.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    ax.set(xlabel="step", ylabel="loss", yscale="log" if log else "linear")
    ax.legend()
    return figure


def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """Mean of the last ``width`` values (fewer at the start), NaN left out."""
    values = np.asarray(values, dtype=float)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.where(known, values, 0).cumsum()])
    counts = np.concatenate([[0], known.cumsum()])
    first = np.maximum(np.arange(1, len(values) + 1) - width, 0)
    totals, numbers = sums[1:] - sums[first], counts[1:] - counts[first]
    return np.divide(totals, numbers, out=np.full(len(values), np.nan), where=numbers > 0)


def bars(
    values: Mapping[str, Sequence[float]],
    *,
    label: str,
    reference: tuple[str, float] | None = None,
) -> Figure:
    """Horizontal bars: the mean of each row's values, its standard deviation, and every value.

    Args:
        values: name -> one number a run (seed). One number gives a bar without error.
        label: what is measured, with its unit.
        reference: name and height of a line to compare with, e.g. ("100 % of the labels", 84.0).
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 1.0 + 0.45 * len(values)), layout="constrained")
    for row, (colour, (_, runs)) in enumerate(_coloured(values)):
        error = np.std(runs, ddof=1) if len(runs) > 1 else None
        ax.barh(row, np.mean(runs), xerr=error, color=colour, alpha=0.75, capsize=4)
        ax.scatter(runs, [row] * len(runs), s=14, color=style.BLACK, zorder=3)
    ax.set(xlabel=label, yticks=range(len(values)), yticklabels=list(values))
    ax.invert_yaxis()  # the first row on top, as in a table
    ax.grid(False, axis="y")
    if reference is not None:
        ax.axvline(reference[1], color=style.BLACK, linestyle="--", label=reference[0])
        figure.legend(loc="outside upper right")
    return figure


def budget_curves(
    budgets: Sequence[float],
    values: Mapping[str, Sequence[Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Mean and standard deviation over a budget: labels, steps, noise.

    ``values`` maps a name to one list of runs for each budget; an empty list (nothing was run
    there) leaves a gap.
    """
    figure, ax = plt.subplots(layout="constrained")
    for colour, (name, groups) in _coloured(values):
        means = np.array([np.mean(runs) if len(runs) else np.nan for runs in groups])
        errors = np.array([np.std(runs, ddof=1) if len(runs) > 1 else 0 for runs in groups])
        ax.plot(budgets, means, "o-", color=colour, label=name)
        ax.fill_between(budgets, means - errors, means + errors, color=colour, alpha=0.2, lw=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return figure


def _coloured(values: Mapping) -> list:
    """(colour, (name, values)) in the order of the mapping."""
    return [(style.CYCLE[i % len(style.CYCLE)], item) for i, item in enumerate(values.items())]
