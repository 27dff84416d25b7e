"""Losses, from field libraries where they exist."""

from lib.losses.co_training import entropy_loss, mutual_consistency
from lib.losses.distillation import distillation_loss
from lib.losses.segmentation import bce_dice, cross_entropy, dice_loss

__all__ = [
    "bce_dice",
    "cross_entropy",
    "dice_loss",
    "distillation_loss",
    "entropy_loss",
    "mutual_consistency",
]
