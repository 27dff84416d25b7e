"""U-Net++ (Zhou et al. 2018, arXiv 1807.10165) of segmentation-models-pytorch."""

from collections.abc import Sequence

import segmentation_models_pytorch as smp
from torch import nn

from lib.models.build import build


def build_unet_pp(
    *,
    encoder: str = "resnet18",
    encoder_weights: str | None = None,
    classes: int = 2,
    in_channels: int = 3,
    decoder_channels: Sequence[int] = (128, 64, 32, 16, 16),
) -> nn.Module:
    """A U-Net++ for images in [0, 1].

    Args:
        encoder: an encoder of segmentation-models-pytorch, or "tu-NAME" for timm's. On a CPU a
            training step with "tu-mobilenetv3_small_100" takes a sixth of the default's time.
        encoder_weights: None starts from random weights; "imagenet" downloads some.
        classes: output channels, background included, at least 2.
        in_channels: channels of the images; all but 3 exclude encoder_weights' normalisation.
        decoder_channels: widths of the five decoder levels, deepest first.

    Returns:
        A module from ``B x in_channels x H x W`` in [0, 1] (H and W divisible by 32) to logits
        ``B x classes x H x W``.

    Raises:
        ValueError: for an unknown encoder, or ``classes`` below 2.
        OSError: if pretrained weights cannot be downloaded.
    """
    return build(
        smp.UnetPlusPlus,
        encoder=encoder,
        encoder_weights=encoder_weights,
        classes=classes,
        in_channels=in_channels,
        decoder_channels=tuple(decoder_channels),
    )
