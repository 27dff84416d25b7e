"""Supervised segmentation losses: cross-entropy (torch) and Dice (MONAI), joined.

The networks have C >= 2 output channels with a softmax over them, class 0 being the background.
For C = 2 the softmax of class 1 is the sigmoid of the difference of the two logits, so the
cross-entropy here *is* binary cross-entropy, and one function serves two and more classes.
"""

import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional

# Added to numerator and denominator, in pixels: an empty mask met by an empty prediction costs 0
# instead of 0/0, and a prediction on an empty mask still has a gradient towards nothing.
SMOOTH = 1.0

_DICE = DiceLoss(
    include_background=False,
    to_onehot_y=True,
    softmax=True,
    smooth_nr=SMOOTH,
    smooth_dr=SMOOTH,
    reduction="none",
)


def bce_dice(
    logits: Tensor,
    mask: Tensor,
    *,
    bce: float = 0.5,
    dice: float = 1.0,
    valid: Tensor | None = None,
) -> Tensor:
    """``bce`` x cross-entropy + ``dice`` x Dice loss, mean over the valid images.

    Args:
        logits: ``B x C x H x W``, C >= 2, of any floating type (computed in float32).
        mask: ``B x H x W`` int64 in 0..C-1.
        bce: weight of the cross-entropy, a mean over an image's pixels, background included.
        dice: weight of the soft Dice loss of each image, a mean over the foreground classes.
        valid: ``B`` bool; False leaves an image out, such as one without a pseudo label. All
            False gives exactly 0 with zero gradients.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    per_image = bce * cross_entropy(logits, mask) + dice * dice_loss(logits, mask)
    if valid is None:
        return per_image.mean()
    if valid.shape != per_image.shape:
        raise ValueError(
            f"valid must be one bool an image, {tuple(per_image.shape)}, got {tuple(valid.shape)}"
        )
    return torch.where(valid, per_image, 0.0).sum() / valid.sum().clamp(min=1)


def cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of each image, ``B``: the mean over its pixels."""
    _check(logits, mask)
    return functional.cross_entropy(logits.float(), mask, reduction="none").mean(dim=(1, 2))


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Soft Dice loss of each image, ``B``: the mean over the foreground classes.

    1 - (2 sum p y + 1) / (sum p + sum y + 1), sums over the image's pixels (Milletari et al. 2016,
    arXiv 1606.04797, without squares). It is taken image by image, so that a large object in one
    image does not hide a small one in another.
    """
    _check(logits, mask)
    return _DICE(logits.float(), mask.unsqueeze(1)).mean(dim=(1, 2, 3))


def _check(logits: Tensor, mask: Tensor) -> None:
    if logits.ndim != 4 or logits.shape[1] < 2:
        raise ValueError(
            f"logits must be B x C x H x W with C >= 2 classes, got {tuple(logits.shape)}"
        )
    expected = (logits.shape[0], *logits.shape[2:])
    if mask.shape != expected:
        raise ValueError(f"mask must be B x H x W = {expected}, got {tuple(mask.shape)}")
