"""What mining did to an image: the network's probability, the prompts, SAM's mask."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib.display.figures import (
    draw_image,
    draw_overlay,
    draw_probability,
    draw_prompts,
    picture_grid,
)


def show_mining(
    images: Sequence[Tensor],
    probabilities: Sequence[Tensor],
    mined: Sequence,
    truths: Sequence[Tensor],
) -> Figure:
    """One image a column: probability, prompts on the image, SAM's mask with the true outline.

    Args:
        images: 3 x H x W in [0, 1]; probabilities: H x W, of the foreground; truths: H x W masks.
        mined: objects with ``prompts`` and ``mask`` (H x W, or None where nothing was kept).
    """
    labels = ("network's\nprobability", "prompts", "SAM's mask,\ntrue outline")
    aspect = images[0].shape[-2] / images[0].shape[-1]
    figure, axes = picture_grid(3, len(images), row_labels=labels, aspect=aspect)
    columns = zip(axes.T, images, probabilities, mined, truths, strict=True)
    for (top, middle, bottom), image, probability, found, truth in columns:
        draw_probability(top, probability)
        draw_image(middle, image)
        draw_prompts(middle, found.prompts)
        mask = torch.zeros_like(truth) if found.mask is None else found.mask
        draw_overlay(bottom, image, mask, truth=truth)
    return figure
