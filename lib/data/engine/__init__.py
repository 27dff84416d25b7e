"""The data engine: endless licence-free images with masks, to pretrain a promptable segmenter.

`VERSION` changes whenever the same seed gives other images; scores on generated images compare
only within a version.
"""

from .backgrounds import STYLES
from .scene import MAX_MASKS, Scene, generate
from .style import HIDDEN, INGREDIENTS

VERSION = 3

__all__ = ["HIDDEN", "INGREDIENTS", "MAX_MASKS", "STYLES", "VERSION", "Scene", "generate"]
