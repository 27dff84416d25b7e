"""U-Net (Ronneberger et al. 2015, arXiv 1505.04597) of segmentation-models-pytorch."""

from collections.abc import Sequence

import segmentation_models_pytorch as smp
from torch import nn

from lib.models.build import build


def build_unet(
    *,
    encoder: str = "resnet18",
    encoder_weights: str | None = None,
    classes: int = 2,
    in_channels: int = 3,
    decoder_channels: Sequence[int] = (128, 64, 32, 16, 16),
) -> nn.Module:
    """A U-Net for images in [0, 1]; arguments, result and errors are those of `build_unet_pp`."""
    return build(
        smp.Unet,
        encoder=encoder,
        encoder_weights=encoder_weights,
        classes=classes,
        in_channels=in_channels,
        decoder_channels=tuple(decoder_channels),
    )
