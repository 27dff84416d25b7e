"""Segmentation networks."""

from lib.models.unet import build_unet
from lib.models.unet_pp import build_unet_pp

__all__ = ["build_unet", "build_unet_pp"]
