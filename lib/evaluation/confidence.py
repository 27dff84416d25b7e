"""Are confident predictions right? Counts over thresholds, for images whose masks may be read."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor


def confidence_table(logits: Tensor, masks: Tensor, thresholds: Sequence[float]) -> pd.DataFrame:
    """What a threshold on the likeliest class's probability lets pass, and how good it is.

    Confidence is what methods with pseudo labels select pixels by; whether it means correctness
    can only be told with the truth, so this is a diagnosis and no part of training.

    Args:
        logits: ``N x C x H x W``.
        masks: ``N x H x W`` integers, the truth; 0 is background.
        thresholds: in [0, 1]; a pixel passes where its probability is at least the threshold.

    Returns:
        One row a threshold, shares in [0, 1]: ``pass`` of all pixels; ``right``, of the passing
        pixels, those of the true class; ``object passes`` of the pixels that truly are foreground;
        ``object right``, of those that pass among them. A share of nothing is NaN.

    Raises:
        ValueError: the masks do not belong to the logits.
    """
    if masks.shape != (len(logits), *logits.shape[2:]):
        raise ValueError(
            f"masks are {tuple(masks.shape)} but the logits {tuple(logits.shape)}: expected "
            "N x H x W and N x C x H x W"
        )
    confidence, labels = logits.float().softmax(dim=1).max(dim=1)
    right, objects = labels == masks, masks > 0
    rows = []
    for threshold in thresholds:
        passes = confidence >= threshold
        rows.append(
            {
                "pass": _share(passes),
                "right": _share(right[passes]),
                "object passes": _share(passes[objects]),
                "object right": _share(right[passes & objects]),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(thresholds, name="threshold"))


def _share(chosen: Tensor) -> float:
    return chosen.to(torch.float64).mean().item()
