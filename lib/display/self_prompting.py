"""Figures of ESP-MedSAM: modalities side by side, and how a model prompts itself."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from lib.display import style
from lib.display.figures import draw_image, draw_outline, draw_overlay, picture_grid

PROMPT = style.CLASS_COLOURS.index(style.SKY) + 1  # the class that is painted in a prompt's colour


def show_outlined(
    columns: Mapping[str, Sequence[tuple[Tensor, Tensor]]], *, row_labels: Sequence[str]
) -> Figure:
    """Images with the outlines of their true masks, below a title a column.

    columns: title to (image 3 x H x W, mask H x W) pairs from the top; missing ones stay empty.
    """
    rows = max(len(pairs) for pairs in columns.values())
    figure, axes = _grid(rows, columns, row_labels[:rows])
    for column, pairs in zip(axes.T, columns.values(), strict=False):
        for ax, (image, mask) in zip(column, pairs, strict=False):
            draw_image(ax, image)
            draw_outline(ax, mask)
    return figure


def show_self_prompts(answers: Sequence[tuple[str, Tensor, Tensor, Tensor, Tensor]]) -> Figure:
    """One column an image: the image, the patches that the model chose, and its mask.

    answers: title, image 3 x H x W, true mask, chosen patches and predicted mask, H x W each. The
        true mask is outlined everywhere.
    """
    titles = [title for title, *_ in answers]
    figure, axes = _grid(3, titles, ["image", "patches", "mask"])
    for column, (_, image, truth, patches, mask) in zip(axes.T, answers, strict=False):
        draw_image(column[0], image)
        draw_overlay(column[1], image, PROMPT * patches)
        draw_overlay(column[2], image, mask)
        for ax in column:
            draw_outline(ax, truth)
    return figure


def _grid(rows, titles, row_labels):
    """At least two columns, so that one picture does not become a poster."""
    columns = max(len(titles), 2)
    width = min(style.WIDTH, 3.0 * columns)
    return picture_grid(rows, columns, titles=list(titles), row_labels=row_labels, width=width)
