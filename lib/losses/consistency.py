"""Losses between predictions: what the semi-supervised family learns unlabelled images by.

Each names the paper that it comes from. A target carries no gradient unless the text says so.
"""

import torch
from torch import Tensor
from torch.nn import functional

from lib.losses.segmentation import SMOOTH


def squared_error(probabilities: Tensor, target: Tensor, *, keep: Tensor | None = None) -> Tensor:
    """Mean over pixels and classes of (p - q)^2; the target q is detached.

    The consistency cost of Mean Teacher (Tarvainen and Valpola 2017, arXiv 1703.01780), and with
    `keep` that of UA-MT (Yu et al. 2019, arXiv 1907.07034, equation 3), which counts the pixels of
    low uncertainty alone.

    Args:
        probabilities, target: `B x C x H x W`, each a distribution over C at every pixel.
        keep: `B x H x W` bool; the mean is over its True pixels, and 0 where there is none.
    """
    error = ((probabilities - target.detach()) ** 2).mean(dim=1)
    if keep is None:
        return error.mean()
    return (error * keep).sum() / keep.sum().clamp(min=1)


def confident_cross_entropy(logits: Tensor, target: Tensor, *, threshold: float) -> Tensor:
    """Mean of 1(max q >= threshold) H(argmax q, p) over **all** pixels, q = softmax(target).

    FixMatch (Sohn et al. 2020, arXiv 2001.07685, equation 4), pixel by pixel. As long as little is
    confident the loss stays small.

    Args:
        logits, target: `B x C x H x W` logits; the target is detached.
        threshold: least probability of the likeliest class, in [0, 1].
    """
    labels, confident = pseudo_labels(target, threshold=threshold)
    entropy = functional.cross_entropy(logits.float(), labels, reduction="none")
    return (entropy * confident).mean()


def pseudo_labels(logits: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    """Likeliest class (`B x H x W` int64), and where its probability reaches the threshold."""
    confidence, labels = logits.detach().float().softmax(dim=1).max(dim=1)
    return labels, confidence >= threshold


def masked_cross_entropy(logits: Tensor, mask: Tensor, keep: Tensor) -> Tensor:
    """Mean cross-entropy over the True pixels of `keep` (`B x H x W` bool); 0 without any.

    One part of BCP's loss (Bai et al. 2023, arXiv 2305.00673), which counts the pasted region and
    the rest of an image apart.
    """
    entropy = functional.cross_entropy(logits.float(), mask, reduction="none")
    return (entropy * keep).sum() / keep.sum().clamp(min=1)


def masked_dice_loss(logits: Tensor, mask: Tensor, keep: Tensor) -> Tensor:
    """Dice loss over the True pixels of `keep`, of the whole batch as of one image.

    1 - (2 sum k p y + 1) / (sum k p + sum k y + 1), mean over the foreground classes. Pooled, as
    the code of BCP and of UniMatch has it (with the background as one more class): most regions of
    one image lack a class, and there a Dice of its own would punish the faintest doubt.

    Args:
        logits: `B x C x H x W`.
        mask: `B x H x W` int64 in 0..C-1.
        keep: `B x H x W` bool.
    """
    keep = keep.unsqueeze(1)
    predicted = (logits.float().softmax(dim=1) * keep)[:, 1:]
    truth = (functional.one_hot(mask, logits.shape[1]).movedim(-1, 1) * keep)[:, 1:]
    over_pixels = (0, 2, 3)
    overlap = (predicted * truth).sum(over_pixels)
    sizes = predicted.sum(over_pixels) + truth.sum(over_pixels)
    return (1 - (2 * overlap + SMOOTH) / (sizes + SMOOTH)).mean()


def pyramid_consistency(scales: list[Tensor]) -> tuple[Tensor, Tensor]:
    """How far the predictions of several scales lie from their mean, doubtful pixels less.

    URPC (Luo et al. 2021, arXiv 2012.07042). With p_c the mean of the S predictions p_s and
    D_s = sum_c p_s log(p_s / p_c) a scale's uncertainty at a pixel, a scale's rectified error is
    sum_v (p_s - p_c)^2 exp(-D_s) / sum_v exp(-D_s). Gradients flow through all of it, the mean
    and the weights included, as in the authors' code, where D_s is KL(p_c || p_s) instead.

    Args:
        scales: S logits `B x C x H x W`, resized to one size.

    Returns:
        The rectified error (mean over classes and scales), and the mean uncertainty, which is
        minimised beside it so that the weights cannot excuse everything.
    """
    log_probabilities = torch.stack([logits.float().log_softmax(dim=1) for logits in scales])
    probabilities = log_probabilities.exp()
    mean = probabilities.mean(dim=0)
    # The mean of softmax outputs is above 0 unless all underflow; then p log p is 0 as well.
    log_mean = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
    uncertainty = (probabilities * (log_probabilities - log_mean)).sum(dim=2)
    weight = torch.exp(-uncertainty)
    error = ((probabilities - mean) ** 2).mean(dim=2)
    over_pixels = (1, 2, 3)
    rectified = (error * weight).sum(over_pixels) / weight.sum(over_pixels)
    return rectified.mean(), uncertainty.mean()


def sharpen(probabilities: Tensor, *, temperature: float) -> Tensor:
    """p^(1/T) / (p^(1/T) + (1 - p)^(1/T)), class by class, with its gradient.

    MC-Net+ (Wu et al. 2022, arXiv 2109.09960): below T = 1 a soft prediction becomes nearly 0 or 1.
    """
    # The same as a sigmoid, where no power can underflow.
    inside = probabilities.float().clamp(1e-7, 1 - 1e-7)
    return torch.sigmoid((inside.log() - (1 - inside).log()) / temperature)
