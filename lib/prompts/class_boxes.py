"""One box a class around a prediction, for whole batches on any device.

The alternative to learnable prompts in KnowSAM's Table V (Huang et al. 2025, arXiv 2412.13742).
"""

import torch
from torch import Tensor
from torch.nn import functional


def class_boxes(logits: Tensor) -> Tensor:
    """The tight box of each class's pixels, by the largest logit.

    Args:
        logits: `B x C x H x W`.

    Returns:
        `B x C x 4` float32, inclusive pixel indices (x0, y0, x1, y1) as in
        `lib.prompts.from_masks`, without gradient. A class without a pixel gets the whole image.
    """
    classes, height, width = logits.shape[1:]
    masks = functional.one_hot(logits.argmax(dim=1), classes).movedim(-1, 1).bool()
    y0, y1 = _ends(masks.any(dim=3))
    x0, x1 = _ends(masks.any(dim=2))
    boxes = torch.stack([x0, y0, x1, y1], dim=-1)
    whole = torch.tensor([0, 0, width - 1, height - 1], device=logits.device)
    return torch.where(masks.any(dim=(2, 3))[..., None], boxes, whole).float()


def _ends(used: Tensor) -> tuple[Tensor, Tensor]:
    """First and last True along the last axis."""
    used = used.int()  # argmax takes the first of equals, and no bool
    return used.argmax(dim=-1), used.shape[-1] - 1 - used.flip(-1).argmax(dim=-1)
