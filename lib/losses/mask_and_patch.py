"""ESP-MedSAM's losses on masks and patches.

Xu et al. 2024, arXiv 2407.14153. The paper's equations were not open to us; the mask loss is the
one that the same group's released code uses, with its weights. It takes Dice and cross-entropy
over a whole batch; here they are taken image by image and then averaged, so that an image's loss
does not depend on its neighbours, which in a mixed batch are of other modalities.
"""

import torch
from torch import Tensor
from torch.nn import functional

from lib.losses.segmentation import cross_entropy, dice_loss


def mask_loss(logits: Tensor, mask: Tensor, *, dice: float = 0.8, focal: float = 0.2) -> Tensor:
    """``dice`` x (1 - Dice) + ``focal`` x focal-like cross-entropy, mean over the images.

    Args:
        logits: ``B x 2 x H x W``. mask: ``B x H x W`` int64, 0 or 1.
        dice, focal: the weights.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    return (dice * dice_loss(logits, mask) + focal * focal_like(logits, mask)).mean()


def focal_like(logits: Tensor, mask: Tensor, *, alpha: float = 0.8, gamma: float = 2.0) -> Tensor:
    """alpha (1 - e^-BCE)^gamma BCE of each image, ``B``, BCE being the mean over its pixels.

    Lin et al. 2017 (arXiv 1708.02002) modulate every pixel by its own probability; here, as
    released, the whole image is modulated by its mean: e^-BCE is the geometric mean of the
    probabilities of its true classes.
    """
    entropy = cross_entropy(logits, mask)
    return alpha * (1 - torch.exp(-entropy)) ** gamma * entropy


def patch_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of patch logits ``B x 1 x h x w`` with targets 0 and 1, their mean.

    Raises:
        ValueError: if the shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"patch logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ: open "
            "the data at the size of the encoder's images (for a SAM, its image size)"
        )
    return functional.binary_cross_entropy_with_logits(logits.float(), targets)
