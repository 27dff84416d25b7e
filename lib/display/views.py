"""Views of images, predictions on them and labels side by side, each drawn as what it is."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lib.display import style
from lib.display.figures import (
    draw_image,
    draw_mask,
    draw_outline,
    draw_probability,
    picture_grid,
)

NOT_COUNTED = -1  # a class map's value for pixels that no loss looks at
GREY = 0.6


def show_views(
    columns: Mapping[str, Sequence[Tensor]],
    *,
    truths: Mapping[str, Sequence[Tensor]] | None = None,
    row_labels: Sequence[str] = (),
    width: float | None = None,
) -> Figure:
    """One column a kind of view, one row an image.

    Args:
        columns: title -> one tensor a row. ``3 x H x W`` in [0, 1] is drawn as a picture,
            ``H x W`` of floats as a probability, of booleans likewise (True is bright), of
            integers as a class map, in which `NOT_COUNTED` is grey.
        truths: title of a column -> one ``H x W`` mask a row, whose border is drawn on it.
        row_labels: beside the rows.
        width: of the figure in inches, see `picture_grid`.

    Raises:
        ValueError: columns of unequal length, or truths for a column that is not there.
    """
    truths = truths or {}
    counts = {title: len(column) for title, column in columns.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"columns must have one tensor a row, got {counts}")
    if unknown := truths.keys() - columns.keys():
        raise ValueError(f"truths names columns that are not there: {', '.join(sorted(unknown))}")
    first = next(iter(columns.values()))
    figure, axes = picture_grid(
        len(first),
        len(columns),
        titles=list(columns),
        row_labels=row_labels,
        aspect=first[0].shape[-2] / first[0].shape[-1],
        width=width,
    )
    for across, (title, column) in zip(axes.T, columns.items(), strict=True):
        for k, ax in enumerate(across):
            _draw(ax, column[k])
            if title in truths:
                draw_outline(ax, truths[title][k])
    return figure


def counted_labels(labels: Tensor, counted: Tensor) -> Tensor:
    """Class map in which pixels that are not counted (``counted`` is False) are `NOT_COUNTED`."""
    return labels.where(counted, NOT_COUNTED)


def frame_box(figure: Figure, box: Tensor, *, colour: str = style.BOX) -> None:
    """Draw the border of an ``H x W`` bool box on every picture of the figure."""
    for ax in figure.axes:
        draw_outline(ax, box, colour=colour)


def _draw(ax: Axes, view: Tensor) -> None:
    if view.ndim == 3:
        draw_image(ax, view)
    elif view.is_floating_point() or view.dtype == torch.bool:
        draw_probability(ax, view.float())
    else:
        draw_mask(ax, view)
        grey = np.full((*view.shape, 4), (GREY, GREY, GREY, 1.0))
        grey[..., 3] = (view == NOT_COUNTED).cpu().numpy()
        ax.imshow(grey)
