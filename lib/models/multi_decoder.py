"""One encoder and several decoders that upsample differently: the network of MC-Net+.

Wu et al. 2022, arXiv 2109.09960. Where the decoders disagree the encoder's features are doubtful.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib.models.unet_2d import (
    DROPOUTS,
    UPSAMPLING,
    WIDTHS,
    UNetDecoder,
    UNetEncoder,
    check_classes,
)


class MultiDecoder(nn.Module):
    """A U-Net encoder with one decoder for each way of upsampling."""

    def __init__(
        self,
        *,
        classes: int,
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
        dropouts: Sequence[float] = DROPOUTS,
        upsamplings: Sequence[str] = UPSAMPLING,
    ):
        """Build encoder and decoders.

        Args:
            classes, in_channels, widths, dropouts: see `UNet2d`.
            upsamplings: of each decoder, see `UNetDecoder`; the first one makes the prediction.
        """
        super().__init__()
        check_classes(classes)
        self.encoder = UNetEncoder(in_channels=in_channels, widths=widths, dropouts=dropouts)
        self.decoders = nn.ModuleList(
            UNetDecoder(classes=classes, widths=widths, upsampling=each) for each in upsamplings
        )
        self.to(memory_format=torch.channels_last)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Features, shallow to deep."""
        return self.encoder(image)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Logits of the first decoder."""
        return self.decoders[0](features)

    def forward(self, image: Tensor) -> Tensor:
        """Logits `B x classes x H x W` of the first decoder: the prediction."""
        return self.decode(self.encode(image))

    def answers(self, image: Tensor) -> list[Tensor]:
        """Logits of all decoders."""
        features = self.encode(image)
        return [decoder(features) for decoder in self.decoders]
