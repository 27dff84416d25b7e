"""Boxes and arrows: the one figure of a method that a reader looks at first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from lib.display import style

GREY = "#888888"
KINDS = {
    "data": {"facecolor": "#f2f2f2", "edgecolor": GREY},
    "trained": {"facecolor": "#e3f0fa", "edgecolor": style.CYCLE[0]},
    "frozen": {"facecolor": "#fdf0da", "edgecolor": style.CYCLE[1], "linestyle": "--"},
}
HEIGHT = 0.62  # of a box, in grid units


@dataclass(frozen=True)
class Box:
    """A box of a diagram: text, place on a grid (column, row from the top), and its kind.

    kind: "data" (images, masks, prompts), "trained" (its weights change) or "frozen".
    """

    text: str
    x: float
    y: float
    kind: str = "data"
    width: float = 1.45


def draw_diagram(
    boxes: Mapping[str, Box], arrows: Sequence[tuple], *, size: tuple[float, float] = (10, 3.2)
) -> Figure:
    """Draw boxes joined by arrows.

    Args:
        boxes: name -> box. One grid unit across is about two inches at the default size.
        arrows: (from, to), (from, to, text) or (from, to, text, bend): names of boxes, words
            beside the arrow, and how far it bends (0 straight). A bent arrow joins the boxes' upper
            sides (bend > 0, about 0.2) or their lower sides (bend < 0).
        size: of the figure in inches.
    """
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    for start, end, *rest in arrows:
        _arrow(ax, boxes[start], boxes[end], *rest)
    for box in boxes.values():
        _box(ax, box)
    left = min(box.x - box.width / 2 for box in boxes.values())
    right = max(box.x + box.width / 2 for box in boxes.values())
    rows = [box.y for box in boxes.values()]
    bends = [rest[1] * abs(boxes[a].x - boxes[b].x) / 2 for a, b, *rest in arrows if len(rest) > 1]
    above, below = max([0.0, *bends]), -min([0.0, *bends])
    ax.set(
        xlim=(left - 0.1, right + 0.1),
        ylim=(max(rows) + below + 0.4, min(rows) - above - 0.4),  # rows count from the top
    )
    ax.axis("off")
    return figure


def _box(ax: Axes, box: Box) -> None:
    patch = FancyBboxPatch(
        (box.x - box.width / 2, box.y - HEIGHT / 2), box.width, HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.08", linewidth=1.5, **KINDS[box.kind],
    )  # fmt: skip
    ax.add_patch(patch)
    ax.text(box.x, box.y, box.text, ha="center", va="center", fontsize=10)


def _arrow(ax: Axes, start: Box, end: Box, text: str = "", bend: float = 0.0) -> None:
    if bend:
        side = -HEIGHT / 2 if bend > 0 else HEIGHT / 2
        a, b = (start.x, start.y + side), (end.x, end.y + side)
        bend = abs(bend) if (b[0] < a[0]) == (side < 0) else -abs(bend)
    else:
        a, b = _border(start, end), _border(end, start)
    ax.add_patch(
        FancyArrowPatch(
            a, b, arrowstyle="-|>", mutation_scale=14, color=GREY, linewidth=1.5,
            connectionstyle=f"arc3,rad={bend}", shrinkA=2, shrinkB=2,
        )
    )  # fmt: skip
    if text:
        across, down = b[0] - a[0], b[1] - a[1]
        middle = (a[0] + b[0]) / 2 - bend * down / 2, (a[1] + b[1]) / 2 + bend * across / 2
        ax.text(
            *middle, text, ha="center", va="center", fontsize=9, color="#444444",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip


def _border(box: Box, other: Box) -> tuple[float, float]:
    """Return the middle of the side of `box` that looks at `other`."""
    across, down = other.x - box.x, other.y - box.y
    if abs(across) >= abs(down):
        return box.x + (box.width / 2 if across > 0 else -box.width / 2), box.y
    return box.x, box.y + (HEIGHT / 2 if down > 0 else -HEIGHT / 2)
