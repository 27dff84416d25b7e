"""Losses of two networks that teach each other: mutual consistency and entropy.

Huang et al. 2025 (KnowSAM, arXiv 2412.13742), equations 5 and 13, and the forms in which the
released code has them where it differs.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def mutual_consistency(first: Tensor, second: Tensor) -> Tensor:
    """L_mut = CE(Y_a, Y_b) + CE(Y_b, Y_a), equation 5.

    In each term the second argument is a fixed soft target: each network learns from the other.

    Args:
        first, second: logits `B x C x H x W`.

    Returns:
        A scalar >= 0, the mean over pixels. It is least, the sum of both entropies, where the two
        agree.
    """
    return soft_cross_entropy(first, second) + soft_cross_entropy(second, first)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-sum_c softmax(target)_c log softmax(logits)_c, mean over pixels; `target` is detached."""
    soft = target.detach().float().softmax(dim=1)
    return -(soft * logits.float().log_softmax(dim=1)).sum(dim=1).mean()


def entropy_loss(logits: Tensor, *, bits: bool = False) -> Tensor:
    """Mean entropy over the pixels, one network's part of equation 13.

    Minimising it moves the class border away from the pixels (Grandvalet and Bengio 2004).

    Args:
        logits: `B x C x H x W`.
        bits: divide by ln 2, as the released code does for any number of classes; else nats.
    """
    log_probabilities = logits.float().log_softmax(dim=1)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()
    return entropy / math.log(2) if bits else entropy


def last_class_consistency(first: Tensor, second: Tensor) -> Tensor:
    """The released code's mutual consistency: the first network alone learns, one class alone.

    Binary cross-entropy of the last class's probability against the other network's; the term of
    the second network has neither prediction nor target attached, so it is left out here.
    """
    probability = first.float().softmax(dim=1)[:, -1].clamp(1e-8, 1 - 1e-7)
    target = second.detach().float().softmax(dim=1)[:, -1]
    with torch.autocast(first.device.type, enabled=False):  # CUDA's refuses this function
        return functional.binary_cross_entropy(probability, target)


def pooled_dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """The Dice loss of SSL4MIS, which the released code uses.

    1 - 2 sum(p y) / (sum p^2 + sum y), sums over the pixels of the whole batch, mean over all
    classes, background included. `lib.losses.segmentation.dice_loss` is this project's own.

    Args:
        logits: `B x C x H x W`.
        mask: `B x H x W` int64 in 0..C-1.
    """
    probabilities = logits.float().softmax(dim=1)
    truth = functional.one_hot(mask, logits.shape[1]).movedim(-1, 1)
    over_pixels = (0, 2, 3)
    overlap = (probabilities * truth).sum(over_pixels)
    sizes = (probabilities**2).sum(over_pixels) + truth.sum(over_pixels)
    return (1 - (2 * overlap + 1e-10) / (sizes + 1e-10)).mean()
