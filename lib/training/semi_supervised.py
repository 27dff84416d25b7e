"""What the semi-supervised family shares: one configuration, one optimiser, the same views.

Rows of a table differ in what a method does with unlabelled images and in nothing else. The values
are those that KnowSAM (Huang et al. 2025, arXiv 2412.13742) and, before it, the collection SSL4MIS
(Luo 2020, github.com/HiLab-git/SSL4MIS) give to all methods of their comparisons.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.data.augment import CutMixConfig, StrongConfig, cutmix_boxes, strong_batch, weak_batch
from lib.data.batches import Batch, Unlabelled
from lib.losses.segmentation import bce_dice

# Settings of the methods that are fractions of a run or an image, or probabilities. A threshold
# above 1 is no mistake: then no pseudo label counts.
SHARES = ("ramp_up", "decay", "feature_dropout", "box", "pretraining")


@dataclass(frozen=True, kw_only=True)
class SemiSupervisedConfig:
    """The settings that all methods of the family have.

    learning_rate, momentum, weight_decay: of SGD; the rate falls to 0 in a straight line (KnowSAM).
    cross_entropy, dice: weights of the two parts of the supervised loss (SSL4MIS: their mean).
    labelled_batch, unlabelled_batch, steps, size: read by whoever builds the BatchStream and calls
        `fit` (KnowSAM); size is the side of the images in pixels.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    cross_entropy: float = 0.5
    dice: float = 0.5
    labelled_batch: int = 12
    unlabelled_batch: int = 12
    steps: int = 50_000
    size: int = 256

    @classmethod
    def quick(cls, **changes):
        """A short run for the CPU: small images, few steps."""
        small = {"labelled_batch": 4, "unlabelled_batch": 4, "steps": 60, "size": 96}
        return cls(**{**small, **changes})

    def __post_init__(self) -> None:
        """Refuse numbers below 0, and shares above 1, in any configuration of the family."""
        for name, value in vars(self).items():
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"{name} must be at least 0, not {value}")
            if name in SHARES and value > 1:
                raise ValueError(f"{name} must be in [0, 1], not {value}")


def sgd(config: SemiSupervisedConfig, *networks: nn.Module) -> torch.optim.SGD:
    """SGD over all parameters of the networks."""
    return torch.optim.SGD(
        [parameter for network in networks for parameter in network.parameters()],
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def supervised_loss(logits: Tensor, mask: Tensor, config: SemiSupervisedConfig) -> Tensor:
    """Cross-entropy and Dice of `B x C x H x W` logits with `B x H x W` masks."""
    return bce_dice(logits, mask, bce=config.cross_entropy, dice=config.dice)


def labelled_view(batch: Batch) -> tuple[Tensor, Tensor]:
    """The weak view of the labelled images, and their masks, moved alike."""
    labelled = batch.labelled
    return weak_batch(labelled.image, labelled.mask, **_key(batch, labelled))


def unlabelled_view(batch: Batch) -> Tensor:
    """The weak view of the unlabelled images.

    Raises:
        ValueError: the batch has none.
    """
    unlabelled = _unlabelled(batch)
    return weak_batch(unlabelled.image, **_key(batch, unlabelled))[0]


def strong_view(
    images: Tensor, batch: Batch, *, view: str = "strong", config: StrongConfig | None = None
) -> Tensor:
    """Other colours for `unlabelled_view`'s images; two different views need two names."""
    return strong_batch(images, **_key(batch, _unlabelled(batch)), view=view, config=config)


def cutmix_view(
    batch: Batch, *, view: str = "cutmix", config: CutMixConfig | None = None
) -> Tensor:
    """A box to paste into for each unlabelled image: `U x H x W` bool, see `cutmix`."""
    unlabelled = _unlabelled(batch)
    size = tuple(unlabelled.image.shape[-2:])
    boxes = cutmix_boxes(size, **_key(batch, unlabelled), view=view, config=config)
    return boxes.to(unlabelled.image.device)


def _key(batch: Batch, part) -> dict:
    return {"seed": batch.seed, "epoch": part.epoch, "indices": part.index}


def _unlabelled(batch: Batch) -> Unlabelled:
    if batch.unlabelled is None:
        raise ValueError(
            "the batch has no unlabelled images: build the BatchStream with unlabelled indices and "
            "unlabelled_batch of at least 1"
        )
    return batch.unlabelled
