"""What KnowSAM and MC-seg share: two subnets and their fusion, views, losses, mixed images.

Huang et al. 2025 (KnowSAM, arXiv 2412.13742). `lib.training.mc_seg` and `lib.training.knowsam` say
in which order the paper puts these parts together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.data.augment import strong_batch, weak_batch
from lib.data.batches import Batch
from lib.data.patch_exchange import exchange_patches
from lib.losses.co_training import (
    entropy_loss,
    last_class_consistency,
    mutual_consistency,
    pooled_dice_loss,
)
from lib.losses.segmentation import bce_dice, cross_entropy
from lib.models.architectures import Architecture
from lib.models.co_training import CoPrediction, CoTraining
from lib.models.hybrid_aggregation import entropy_map
from lib.models.unet_2d import WIDTHS


@dataclass(frozen=True, kw_only=True)
class CoTrainingConfig:
    """Defaults are the paper's; "released" names what its code does instead.

    classes: background included.
    widths: channels of the five levels of both subnets.
    skips_before_convolutions: released; see `VNet2d`.
    entropy_view, dissimilarity_view, predictions_view: what the fusion looks at (Table IV).
    inverted_maps, activated_fusion: released; see `HybridAggregation`.
    cross_entropy, dice: weights of the two parts of L_seg, equation 4.
    pooled_dice: released; see `pooled_dice_loss`.
    entropy_weight: of L_ent, equation 14. entropy_in_bits: released, bits instead of nats.
    consistency_weight: beta, the weight of L_mut at the end of its ramp-up.
    last_class_consistency: released; see the function of that name.
    subnet_share: factor on the losses of both subnets; 1 their sum (equation 14), 0.5 their mean
        (released).
    strong_unlabelled: change the colours of unlabelled images (equation 11), not only move them.
    exchange: train on images with exchanged patches (UGDA, Table VI).
    exchange_patches, exchange_grid: 5 of 4 x 4 patches.
    exchange_highest: the most uncertain patches; False the surest (released).
    exchange_start: fraction of the run before the first exchange (released: 12,000 of 50,000).
    exchange_all_losses: released; the fusion learns from mixed images too, and the subnets from
        all their losses and from the fusion's own answer on mixed unlabelled images.
    learning_rate, momentum, weight_decay: of SGD on subnets and fusion; the rate falls to 0 in a
        straight line.
    labelled_batch, unlabelled_batch, steps, size: read by whoever builds the stream and calls
        `fit`; size is the side of the images in pixels.
    """

    classes: int = 2
    widths: tuple[int, ...] = WIDTHS
    skips_before_convolutions: bool = False
    entropy_view: bool = True
    dissimilarity_view: bool = True
    predictions_view: bool = True
    inverted_maps: bool = False
    activated_fusion: bool = False
    cross_entropy: float = 1.0
    dice: float = 1.0
    pooled_dice: bool = False
    entropy_weight: float = 0.9
    entropy_in_bits: bool = False
    consistency_weight: float = 1.0
    last_class_consistency: bool = False
    subnet_share: float = 1.0
    strong_unlabelled: bool = True
    exchange: bool = True
    exchange_patches: int = 5
    exchange_grid: int = 4
    exchange_highest: bool = True
    exchange_start: float = 0.0
    exchange_all_losses: bool = False
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    labelled_batch: int = 12
    unlabelled_batch: int = 12
    steps: int = 50_000
    size: int = 256

    @classmethod
    def quick(cls, **changes):
        """A short run for the CPU: small images, few steps."""
        small = {"labelled_batch": 4, "unlabelled_batch": 4, "steps": 60, "size": 96}
        return cls(**{**small, **changes})

    def architecture(self) -> Architecture:
        """What builds the students."""
        return Architecture(
            "co_training",
            {
                "classes": self.classes,
                "widths": self.widths,
                "skips_before_convolutions": self.skips_before_convolutions,
                "entropy": self.entropy_view,
                "dissimilarity": self.dissimilarity_view,
                "predictions": self.predictions_view,
                "inverted_maps": self.inverted_maps,
                "activated_output": self.activated_fusion,
            },
        )

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name in (
            "cross_entropy",
            "dice",
            "entropy_weight",
            "consistency_weight",
            "subnet_share",
            "learning_rate",
            "momentum",
            "weight_decay",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if self.exchange_grid < 1:
            raise ValueError(f"exchange_grid must be at least 1, not {self.exchange_grid}")
        if not 0 <= self.exchange_patches <= self.exchange_grid**2:
            raise ValueError(
                f"exchange_patches must be 0 to {self.exchange_grid**2} "
                f"(exchange_grid={self.exchange_grid}), not {self.exchange_patches}"
            )
        if not 0 <= self.exchange_start <= 1:
            raise ValueError(
                "exchange_start is a fraction of the run and must be in [0, 1], not "
                f"{self.exchange_start}"
            )


def build_students(config: CoTrainingConfig) -> CoTraining:
    """F_A = U-Net, F_B = V-Net, and the hybrid aggregation of their predictions."""
    return config.architecture().build()


def student_optimizer(students: CoTraining, config: CoTrainingConfig) -> torch.optim.SGD:
    """SGD on both subnets and the fusion."""
    return torch.optim.SGD(
        students.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def views(batch: Batch, config: CoTrainingConfig) -> tuple[Tensor, Tensor]:
    """Labelled images weakly, unlabelled ones strongly augmented; part of equation 11.

    Returns:
        Images (L + U) x 3 x H x W, the labelled first, and masks L x H x W.
    """
    labelled, unlabelled = batch.labelled, batch.unlabelled
    images, masks = weak_batch(
        labelled.image,
        labelled.mask,
        seed=batch.seed,
        epoch=labelled.epoch,
        indices=labelled.index,
    )
    if unlabelled is None:
        return images, masks
    key = {"seed": batch.seed, "epoch": unlabelled.epoch, "indices": unlabelled.index}
    others, _ = weak_batch(unlabelled.image, **key)
    if config.strong_unlabelled:
        others = strong_batch(others, **key)
    return torch.cat([images, others]), masks


def segmentation_loss(logits: Tensor, mask: Tensor, config: CoTrainingConfig) -> Tensor:
    """L_seg, cross-entropy and Dice: equation 4."""
    if config.pooled_dice:
        entropy, dice = cross_entropy(logits, mask).mean(), pooled_dice_loss(logits, mask)
        return config.cross_entropy * entropy + config.dice * dice
    return bce_dice(logits, mask, bce=config.cross_entropy, dice=config.dice)


def consistency_loss(prediction: CoPrediction, config: CoTrainingConfig) -> Tensor:
    """L_mut of the two subnets: equation 5."""
    form = last_class_consistency if config.last_class_consistency else mutual_consistency
    return form(prediction.first, prediction.second)


def entropy_losses(prediction: CoPrediction, config: CoTrainingConfig) -> Tensor:
    """L_ent, the mean entropies of both subnets: equation 13."""
    return sum(
        entropy_loss(logits, bits=config.entropy_in_bits)
        for logits in (prediction.first, prediction.second)
    )


def exchange_loss(
    students: CoTraining,
    images: Tensor,
    masks: Tensor,
    *,
    uncertain: Tensor,
    pseudo: Tensor,
    consistency_weight: float,
    config: CoTrainingConfig,
) -> Tensor:
    """What the subnets lose on images with exchanged patches (UGDA), `subnet_share` included.

    Args:
        images: (L + U) x 3 x H x W, the labelled first; min(L, U) pairs are mixed.
        masks: L x H x W.
        uncertain: logits (L + U) x C x H x W whose entropy ranks the patches.
        pseudo: U x H x W int64 pseudo labels of the unlabelled images.
        consistency_weight: lambda_m of this step; used by `exchange_all_losses` alone.
    """
    labelled = len(masks)
    pairs = min(labelled, len(images) - labelled)
    left, right = slice(0, pairs), slice(labelled, labelled + pairs)
    uncertainty = entropy_map(uncertain.detach())
    mixed = exchange_patches(
        (images[left], masks[left]),
        (images[right], pseudo[:pairs]),
        (uncertainty[left], uncertainty[right]),
        patches=config.exchange_patches,
        grid=config.exchange_grid,
        highest=config.exchange_highest,
    )
    # The fusion is the dearest of the three at full resolution: it runs only if it is to learn.
    first, second = students.first(mixed.image), students.second(mixed.image)
    loss = sum(segmentation_loss(logits, mixed.mask, config) for logits in (first, second))
    if not config.exchange_all_losses:
        return config.subnet_share * loss
    prediction = CoPrediction(first, second, students.fusion(first, second))
    own = prediction.fused[pairs:].argmax(dim=1)
    loss = loss + config.entropy_weight * entropy_losses(prediction, config)
    loss = loss + consistency_weight * consistency_loss(prediction, config)
    loss = loss + consistency_weight * sum(
        segmentation_loss(logits[pairs:], own, config) for logits in (first, second)
    )
    fused = segmentation_loss(prediction.fused, mixed.mask, config)
    return config.subnet_share * loss + fused
