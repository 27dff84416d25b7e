"""A U-Net that predicts at every scale of its decoder: the pyramid of URPC.

Luo et al. 2021, arXiv 2012.07042 (there in three dimensions).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.models.unet_2d import DROPOUTS, WIDTHS, UNet2d


class FeatureNoise(nn.Module):
    """While training, multiply features by 1 + n, n even in [-amount, amount], alike for a batch.

    Ouali et al. 2020 (CCT, arXiv 2003.09005).
    """

    def __init__(self, amount: float = 0.3):
        """`amount` in [0, 1)."""
        super().__init__()
        self.amount = amount

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        if not self.training:
            return features
        noise = torch.empty_like(features[:1]).uniform_(-self.amount, self.amount)
        return features * (1 + noise)


class MultiScale(nn.Module):
    """`UNet2d` with one more head at each deeper level of its decoder."""

    def __init__(
        self,
        *,
        classes: int,
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
        dropouts: Sequence[float] = DROPOUTS,
        head_dropout: float = 0.5,
        head_noise: float = 0.3,
    ):
        """Build the network.

        Args:
            classes, in_channels, widths, dropouts: see `UNet2d`. L widths give L - 1 scales.
            head_dropout, head_noise: perturb the features before the deeper heads while training,
                so that the scales differ in more than their resolution. The main head's stay.
        """
        super().__init__()
        self.network = UNet2d(
            classes=classes, in_channels=in_channels, widths=widths, dropouts=dropouts
        )
        deep_first = widths[-2:0:-1]
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(head_dropout), FeatureNoise(head_noise), nn.Conv2d(width, classes, 1)
            )
            for width in deep_first
        )
        self.to(memory_format=torch.channels_last)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Features, shallow to deep."""
        return self.network.encode(image)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Logits of the main head."""
        return self.network.decode(features)

    def forward(self, image: Tensor) -> Tensor:
        """Logits `B x classes x H x W` of the main head: the prediction."""
        return self.network(image)

    def scales(self, image: Tensor) -> list[Tensor]:
        """Logits of all heads, each resized to `B x classes x H x W`, the main head's first."""
        decoder = self.network.decoder
        *deep_first, last = decoder.levels(self.encode(image))
        coarse = [head(level) for head, level in zip(self.heads, deep_first, strict=True)]
        resized = [
            functional.interpolate(logits, image.shape[-2:], mode="bilinear") for logits in coarse
        ]
        return [decoder.head(last), *reversed(resized)]
