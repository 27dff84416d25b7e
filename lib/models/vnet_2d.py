"""The two-dimensional V-Net that KnowSAM sets beside the U-Net.

Milletari et al. 2016, arXiv 1606.04797, in two dimensions and without residual connections, in the
size of KnowSAM's subnet F_B (Huang et al. 2025, arXiv 2412.13742): 3,265,986 parameters for two
classes. It has no normalisation layers, so it needs a gentler learning rate than the U-Net.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lib.models.unet_2d import WIDTHS, check_classes, check_size

CONVOLUTIONS = (1, 2, 3, 3, 3)


class VNet2d(nn.Module):
    """V-Net: `B x in_channels x H x W` in [0, 1] to logits `B x classes x H x W`."""

    def __init__(
        self,
        *,
        classes: int,
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
        convolutions: Sequence[int] = CONVOLUTIONS,
        dropout: float = 0.0,
        skips_before_convolutions: bool = False,
    ):
        """Build the network; weights are drawn as He et al. 2015 (arXiv 1502.01852) advise.

        Args:
            classes: output channels, background included, at least 2.
            in_channels: channels of the images.
            widths: channels of each level, shallow to deep; L levels need sides that divide by
                2^(L - 1), 16 by default.
            convolutions: convolutions of each level, the same on both sides.
            dropout: probability of dropping whole channels of the deepest features and of those
                before the head.
            skips_before_convolutions: True hands the decoder each level's features as they were
                before the level's convolutions (all but the first level), as KnowSAM's released
                code does; False those after them, as the V-Net does.

        Raises:
            ValueError: for fewer than two classes, or unequal numbers of widths and convolutions.
        """
        super().__init__()
        check_classes(classes)
        if len(widths) != len(convolutions):
            raise ValueError(
                f"convolutions must be one number a level: {len(widths)} widths, "
                f"{len(convolutions)} convolutions"
            )
        self.skips_before_convolutions = skips_before_convolutions
        firsts = (in_channels, *widths[1:])
        self.levels = nn.ModuleList(map(_convolutions, firsts, widths, convolutions))
        pairs = list(pairwise(widths))
        self.downs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(shallow, deep, 2, stride=2), nn.ReLU(inplace=True))
            for shallow, deep in pairs
        )
        self.ups = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(deep, shallow, 2, stride=2), nn.ReLU(inplace=True))
            for shallow, deep in reversed(pairs)
        )
        shallow_first = list(zip(widths[:-1], convolutions[:-1], strict=True))
        self.decoder_levels = nn.ModuleList(
            _convolutions(width, width, count) for width, count in reversed(shallow_first)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(widths[0], classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight)
        # Weights stored by channel last: the same output, about 2/3 of the time on CPUs.
        self.to(memory_format=torch.channels_last)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Features, shallow to deep.

        Raises:
            ValueError: H or W does not divide by 16 (2^(levels - 1)).
        """
        check_size(image, 2 ** len(self.downs))
        current = self.levels[0](image)
        features = [current]
        for down, level in zip(self.downs, self.levels[1:], strict=True):
            entering = down(current)
            current = level(entering)
            features.append(entering if self.skips_before_convolutions else current)
        # The deepest level is no skip: its features are always those after its convolutions.
        return [*features[:-1], self.dropout(current)]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Logits `B x classes x H x W` of `encode`'s features."""
        current = features[-1]
        for up, level, skip in zip(self.ups, self.decoder_levels, features[-2::-1], strict=True):
            current = level(up(current) + skip)
        return self.head(self.dropout(current))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the image."""
        return self.decode(self.encode(image))


def _convolutions(before: int, after: int, count: int) -> nn.Sequential:
    """`count` convolutions 3 x 3, each with a ReLU."""
    widths = (before, *(after,) * count)
    layers = []
    for left, right in pairwise(widths):
        layers += [nn.Conv2d(left, right, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
