"""One round of mining: network prediction -> prompts -> frozen SAM -> pseudo mask, image by image.

Mao et al. 2025, arXiv 2503.06816, name the chain but not its rules (number of points, box,
filter); the rules here are this project's choices and every one is a switch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib.prompts.from_masks import PromptConfig, against_others, prompts_from_probability
from lib.sam.frozen import FrozenSam


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which mined masks are trusted; the default takes every mask that is not empty.

    predicted_iou: least mean IoU that SAM predicts for its own masks, 0 to 1 (0: off).
    agreement: least IoU between SAM's mask and the network's, 0 to 1 (0: off).
    """

    predicted_iou: float = 0.0
    agreement: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a threshold that is no share."""
        for name in ("predicted_iou", "agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Filter.{name} must be in [0, 1], not {getattr(self, name)}")


@dataclass
class Mined:
    """What one image yielded: `mask` is H x W uint8, or None with the reason in `outcome`."""

    mask: Tensor | None
    outcome: str  # "kept", "no prompt", "empty", "low predicted IoU", "low agreement"
    prompts: list = field(default_factory=list)
    predicted_iou: float = float("nan")
    agreement: float = float("nan")


@torch.no_grad()
def mine(
    probabilities: Tensor,
    embeddings: Callable[[list[int]], Tensor],
    sam: FrozenSam,
    *,
    prompts: PromptConfig,
    trust: Filter,
) -> list[Mined]:
    """Turn B predictions into B pseudo labels with a frozen SAM.

    Args:
        probabilities: B x C x H x W softmax output in [0, 1], class 0 the background. Each
            foreground class and each of its components is prompted on its own, where the class is
            the likeliest: what a self-trained label would be, too.
        embeddings: called with the positions (0..B-1) of the images that have a prompt; returns
            their SAM embeddings. The others are never encoded.
        sam: the frozen teacher; `prompts` and `trust`: the rules.

    Returns:
        One `Mined` an image. Where objects overlap, the class with the highest logit wins.
    """
    probabilities = probabilities.float().cpu()
    found, classes, owner = [], [], []
    for position, probability in enumerate(probabilities):
        for label in range(1, probability.shape[0]):
            for prompt in prompts_from_probability(against_others(probability, label), prompts):
                found.append(prompt)
                classes.append(label)
                owner.append(position)
    if not found:
        return [Mined(None, "no prompt") for _ in probabilities]
    prompted = sorted(set(owner))
    row = {position: k for k, position in enumerate(prompted)}
    size = tuple(probabilities.shape[-2:])
    decoded = sam.decode(embeddings(prompted), found, [row[p] for p in owner], size)
    best = decoded.logits[:, 0].float().cpu(), decoded.iou[:, 0].float().cpu()
    return [
        _judge(probabilities[p], p, found, classes, owner, best, trust)
        for p in range(len(probabilities))
    ]


def _judge(probability, position, found, classes, owner, best, trust: Filter) -> Mined:
    """Unite the masks of one image and apply the filters."""
    mine_of = [k for k, p in enumerate(owner) if p == position]
    if not mine_of:
        return Mined(None, "no prompt")
    logits, ious = best
    mask = unite(logits[mine_of], [classes[k] for k in mine_of])
    result = Mined(
        mask,
        "kept",
        prompts=[found[k] for k in mine_of],
        predicted_iou=float(ious[mine_of].mean()),
        agreement=overlap(mask, probability.argmax(0)),
    )
    if not mask.any():
        result.outcome = "empty"
    elif result.predicted_iou < trust.predicted_iou:
        result.outcome = "low predicted IoU"
    elif result.agreement < trust.agreement:
        result.outcome = "low agreement"
    if result.outcome != "kept":
        result.mask = None
    return result


def unite(logits: Tensor, classes: list[int]) -> Tensor:
    """Join N masks into one label map: the class of the highest logit above 0, else background.

    logits: N x H x W; classes: N labels >= 1. Returns H x W uint8.
    """
    top, which = logits.max(dim=0)
    labels = torch.tensor(classes, dtype=torch.uint8)[which]
    return torch.where(top > 0, labels, torch.zeros_like(labels))


def overlap(mask: Tensor, other: Tensor) -> float:
    """IoU of the foregrounds of two H x W label maps, mean over the classes present in either."""
    labels = sorted((set(mask.unique().tolist()) | set(other.unique().tolist())) - {0})
    if not labels:
        return 1.0
    ious = []
    for label in labels:
        a, b = mask == label, other == label
        ious.append(float((a & b).sum() / (a | b).sum()))
    return sum(ious) / len(ious)
