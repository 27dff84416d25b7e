"""Pictures of a promptable model: scenes, its embedding in colours, its accuracy and answers."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib.display import style
from lib.display.figures import (
    draw_errors,
    draw_image,
    draw_outline,
    draw_prompts,
    error_legend,
    picture_grid,
)

MARKERS = "ov^sDP"


def embedding_colours(embeddings: Tensor, *, reference: Tensor | None = None) -> Tensor:
    """Three principal components of all tokens as red, green, blue.

    Args:
        embeddings: B x C x h x w, C >= 3. All images share the components, so that one colour
            means the same in each.
        reference: A x C x h x w, whose tokens decide components and range, so that one colour also
            means the same in every picture made with it; `embeddings` themselves by default.

    Returns:
        B x 3 x h x w in [0, 1]; the lowest and highest 2 % of each component (of the reference)
        are clipped.
    """
    known = _tokens(embeddings if reference is None else reference)
    mean = known.mean(0)
    _, directions = torch.linalg.eigh((known - mean).T @ (known - mean))  # ascending order
    directions = directions[:, -3:].flip(1)
    ordered = ((known - mean) @ directions).sort(0).values
    low, high = ordered[[int(0.02 * len(ordered)), int(0.98 * (len(ordered) - 1))]]
    colours = (_tokens(embeddings) - mean) @ directions
    colours = ((colours - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return colours.unflatten(0, (len(embeddings), *embeddings.shape[2:])).movedim(-1, 1)


def _tokens(embeddings: Tensor) -> Tensor:
    return embeddings.float().movedim(1, -1).flatten(0, 2)


def prompt_chart(scores: pd.DataFrame, *, floor: str, label: str = "mean IoU") -> Figure:
    """One line a data set, one mark a kind of prompt, the floor as a black stroke.

    Args:
        scores: rows are data sets, columns kinds of prompt, values in [0, 1].
        floor: the column that every other one has to beat.
    """
    figure, ax = plt.subplots(figsize=(8, 0.9 + 0.4 * len(scores)), layout="constrained")
    prompts = [column for column in scores.columns if column != floor]
    for marker, colour, name in zip(MARKERS, style.CYCLE, prompts, strict=False):
        ax.scatter(scores[name], scores.index, marker=marker, s=55, color=colour, label=name)
    ax.scatter(
        scores[floor], scores.index, marker="|", s=220, linewidth=2, color=style.BLACK, label=floor
    )
    ax.set(xlabel=label, xlim=(0, 1))
    ax.invert_yaxis()  # the first row on top, as in a table
    figure.legend(loc="outside right upper")
    return figure


def show_scenes(scenes: Iterable, *, titles: Sequence[str], columns: int = 6) -> Figure:
    """A contact sheet of scenes, each object outlined in a colour of its own.

    `scenes`: objects with `image` (H x W x 3 uint8) and `masks` (K x H x W bool), as
    `lib.data.engine.generate` makes them.
    """
    scenes = list(scenes)
    figure, axes = picture_grid(-(-len(scenes) // columns), columns)
    for ax, scene, title in zip(axes.flat, scenes, titles, strict=False):
        draw_image(ax, torch.from_numpy(scene.image).permute(2, 0, 1) / 255)
        for k, mask in enumerate(scene.masks):
            colour = style.CLASS_COLOURS[k % len(style.CLASS_COLOURS)]
            draw_outline(ax, torch.from_numpy(mask), colour=colour)
        ax.set_title(title, fontsize=9)
    return figure


def show_answers(
    images: Sequence[Tensor],
    targets: Sequence[Tensor],
    answers: Mapping[str, Sequence[Tensor]],
    *,
    prompts: Sequence,
    titles: Sequence[str],
    width: float | None = None,
) -> Figure:
    """One image a column, one row a name in `answers`: hits, misses and false alarms.

    Args:
        images: 3 x H x W in [0, 1]; targets: H x W bool, what was meant.
        answers: name -> one H x W bool mask an image.
        prompts: one an image, drawn in the first row.
        width: of the figure in inches, see `picture_grid`.
    """
    figure, axes = picture_grid(
        len(answers), len(images), titles=titles, row_labels=list(answers), width=width
    )
    for row, masks in zip(axes, answers.values(), strict=True):
        for ax, image, mask, target in zip(row, images, masks, targets, strict=True):
            draw_errors(ax, image, mask, target)
    for ax, prompt in zip(axes[0], prompts, strict=True):
        draw_prompts(ax, [prompt])
    error_legend(figure)
    return figure


def show_embeddings(
    images: Sequence[Tensor], targets: Sequence[Tensor], colours: Tensor, *, titles: Sequence[str]
) -> Figure:
    """Images (3 x H x W) with their targets outlined, and below each the colours of its tokens.

    `colours`: what `embedding_colours` made of the images' embeddings.
    """
    labels = ("image", "embedding")
    figure, axes = picture_grid(2, len(images), titles=titles, row_labels=labels)
    for column, image, target, tokens in zip(axes.T, images, targets, colours, strict=True):
        draw_image(column[0], image)
        draw_outline(column[0], target)
        draw_image(column[1], tokens)
    return figure
