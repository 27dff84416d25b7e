"""The data engine: endless licence-free images with masks, to pretrain a promptable segmenter."""

from .backgrounds import STYLES
from .scene import MAX_MASKS, Scene, generate

__all__ = ["MAX_MASKS", "STYLES", "Scene", "generate"]
