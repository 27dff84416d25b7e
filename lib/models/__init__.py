"""Segmentation networks."""

from lib.models.architectures import Architecture
from lib.models.co_training import CoPrediction, CoTraining, build_co_training
from lib.models.hybrid_aggregation import HybridAggregation
from lib.models.unet import build_unet
from lib.models.unet_2d import UNet2d
from lib.models.unet_pp import build_unet_pp
from lib.models.vnet_2d import VNet2d

__all__ = [
    "Architecture",
    "CoPrediction",
    "CoTraining",
    "HybridAggregation",
    "UNet2d",
    "VNet2d",
    "build_co_training",
    "build_unet",
    "build_unet_pp",
]
