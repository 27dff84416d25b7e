"""Uncertainty-guided augmentation: swap patches between labelled and unlabelled images.

Huang et al. 2025 (KnowSAM, arXiv 2412.13742), equation 11. An image's most uncertain patches are
replaced by those of its partner at the same place, and its label with them, both ways.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Exchanged(NamedTuple):
    """Mixed pairs: `image` 2B x 3 x H x W and `mask` 2B x H x W, the labelled ones first.

    `swapped` (2B x H x W bool) marks the pixels that came from the partner.
    """

    image: Tensor
    mask: Tensor
    swapped: Tensor


def exchange_patches(
    labelled: tuple[Tensor, Tensor],
    unlabelled: tuple[Tensor, Tensor],
    uncertainty: tuple[Tensor, Tensor],
    *,
    patches: int = 5,
    grid: int = 4,
    highest: bool = True,
) -> Exchanged:
    """Mix the i-th labelled with the i-th unlabelled image.

    Args:
        labelled: images B x 3 x H x W and their masks B x H x W int64.
        unlabelled: images and their pseudo labels, of the same shapes.
        uncertainty: B x 1 x H x W of the labelled and of the unlabelled images, such as
            entropies; its mean over a patch ranks the patches of each image.
        patches: how many of an image's patches are replaced.
        grid: patches a side; H and W must divide by it.
        highest: replace the patches of highest uncertainty, as the paper says; False those of
            lowest, as its released code does.

    Raises:
        ValueError: shapes that do not belong together, sides that do not divide by `grid`, or
            more patches than there are.
    """
    _check(labelled, unlabelled, uncertainty, patches, grid)
    images = torch.cat([labelled[0], unlabelled[0]])
    masks = torch.cat([labelled[1], unlabelled[1]])
    swapped = _chosen(torch.cat(uncertainty), patches, grid, highest)
    # Each half takes from the other one: rolling by half the batch puts the partner in place.
    half = len(labelled[0])
    return Exchanged(
        torch.where(swapped.unsqueeze(1), images.roll(half, 0), images),
        torch.where(swapped, masks.roll(half, 0), masks),
        swapped,
    )


def _chosen(uncertainty: Tensor, patches: int, grid: int, highest: bool) -> Tensor:
    """B x H x W bool: the pixels of each image's `patches` most (or least) uncertain patches."""
    means = functional.adaptive_avg_pool2d(uncertainty.detach().float(), grid).flatten(1)
    best = means.topk(patches, dim=1, largest=highest).indices
    chosen = torch.zeros_like(means, dtype=torch.bool).scatter(1, best, True)
    height, width = (side // grid for side in uncertainty.shape[-2:])
    chosen = chosen.unflatten(1, (grid, grid))
    return chosen.repeat_interleave(height, dim=1).repeat_interleave(width, dim=2)


def _check(labelled, unlabelled, uncertainty, patches: int, grid: int) -> None:
    batch, _, height, width = labelled[0].shape
    expected = {
        "images": [labelled[0].shape, unlabelled[0].shape, (batch, 3, height, width)],
        "masks": [labelled[1].shape, unlabelled[1].shape, (batch, height, width)],
        "uncertainty": [*(u.shape for u in uncertainty), (batch, 1, height, width)],
    }
    for name, (first, second, shape) in expected.items():
        if not tuple(first) == tuple(second) == shape:
            raise ValueError(
                f"{name} must be {shape} on both sides, got {tuple(first)} and {tuple(second)}: "
                "pairs are exchanged one to one"
            )
    if grid < 1:
        raise ValueError(f"grid must be at least 1, not {grid}")
    if height % grid or width % grid:
        raise ValueError(
            f"images of {height} x {width} do not divide into grid={grid} patches a side"
        )
    if not 0 <= patches <= grid**2:
        raise ValueError(f"patches must be 0 to {grid**2} (grid={grid}), not {patches}")
