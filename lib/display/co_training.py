"""What KnowSAM's parts see and do: maps side by side, exchanged patches, a teacher's masks."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from lib.display import style
from lib.display.figures import (
    draw_image,
    draw_mask,
    draw_outline,
    draw_overlay,
    draw_probability,
    picture_grid,
)


def show_maps(
    images: Sequence[Tensor], truths: Sequence[Tensor], maps: Mapping[str, Sequence[Tensor]]
) -> Figure:
    """Image with the true outline, then one map a column; the outline again on the last.

    Args:
        images: 3 x H x W in [0, 1]; truths: H x W masks.
        maps: title -> one H x W map an image, with values in [0, 1].
    """
    aspect = images[0].shape[-2] / images[0].shape[-1]
    titles = ("image, truth", *maps)
    figure, axes = picture_grid(len(images), len(titles), titles=titles, aspect=aspect)
    for k, row in enumerate(axes):
        draw_image(row[0], images[k])
        for ax, values in zip(row[1:], maps.values(), strict=True):
            draw_probability(ax, values[k])
        for ax in (row[0], row[-1]):
            draw_outline(ax, truths[k])
    return figure


def show_exchange(images: Tensor, uncertainty: Tensor, mixed, *, grid: int = 4) -> Figure:
    """A labelled and an unlabelled image before and after their patches were exchanged.

    Args:
        images: 2 x 3 x H x W, the labelled one first.
        uncertainty: 2 x 1 x H x W in [0, 1]; the mean of each patch is written on it.
        mixed: with ``image``, ``mask`` and ``swapped`` as in
            `lib.data.patch_exchange.Exchanged`; the patches that come from the partner are framed.
        grid: patches a side.
    """
    titles = ("image", "uncertainty,\nmean of each patch", "mixed image", "its label")
    labels = ("labelled", "unlabelled")
    height, width = images.shape[-2] // grid, images.shape[-1] // grid
    aspect = images.shape[-2] / images.shape[-1]
    figure, axes = picture_grid(2, 4, titles=titles, row_labels=labels, aspect=aspect)
    for k, row in enumerate(axes):
        draw_image(row[0], images[k])
        draw_probability(row[1], uncertainty[k, 0])
        draw_image(row[2], mixed.image[k])
        draw_mask(row[3], mixed.mask[k])
        for y in range(0, grid * height, height):
            for x in range(0, grid * width, width):
                mean = float(uncertainty[k, 0, y : y + height, x : x + width].mean())
                middle = x + width / 2 - 0.5, y + height / 2 - 0.5
                text = row[1].text(*middle, f"{mean:.2f}", color="white", ha="center", va="center")
                # A patch of low mean may still be bright under its number.
                text.set_path_effects([withStroke(linewidth=2.5, foreground="black")])
                if mixed.swapped[k, y, x]:
                    for ax in row:
                        _frame(ax, x, y, width, height)
    return figure


def show_taught_masks(
    images: Sequence[Tensor],
    prompts: Sequence[Tensor],
    masks: Mapping[str, Sequence[Tensor]],
    truths: Sequence[Tensor],
) -> Figure:
    """A teacher's masks over the images, one image a column and one teacher a row.

    Args:
        images: 3 x H x W in [0, 1].
        prompts: H x W masks that the teacher was prompted with; drawn as outlines.
        masks: row label -> one H x W class map an image.
        truths: H x W masks, drawn as outlines.
    """
    aspect = images[0].shape[-2] / images[0].shape[-1]
    figure, axes = picture_grid(len(masks), len(images), row_labels=list(masks), aspect=aspect)
    for row, drawn in zip(axes, masks.values(), strict=True):
        for k, ax in enumerate(row):
            draw_overlay(ax, images[k], drawn[k])
            draw_outline(ax, prompts[k], colour=style.BOX)
            draw_outline(ax, truths[k])
    lines = {"mask prompt": style.BOX, "truth": style.TRUTH}
    handles = [plt.Line2D([], [], color=colour, label=name) for name, colour in lines.items()]
    # A dark ground: the colour of the truth is made for pictures, not for paper.
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor="white")
    legend.get_frame().set(visible=True, facecolor="#444444", alpha=1)
    return figure


def _frame(ax, x: int, y: int, width: int, height: int) -> None:
    patch = Rectangle((x - 0.5, y - 0.5), width, height, fill=False, linewidth=2)
    patch.set_edgecolor(style.BOX)
    ax.add_patch(patch)
