"""Losses, from field libraries where they exist."""

from lib.losses.segmentation import bce_dice, cross_entropy, dice_loss

__all__ = ["bce_dice", "cross_entropy", "dice_loss"]
