"""The small U-Net of the semi-supervised family, 16 to 256 channels in five levels.

Ronneberger et al. 2015, arXiv 1505.04597, in the size that semi-supervised segmentation has used
since SSL4MIS, KnowSAM (Huang et al. 2025, arXiv 2412.13742, subnet F_A) included: 1,944,322
parameters for two classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (16, 32, 64, 128, 256)
DROPOUTS = (0.05, 0.1, 0.2, 0.3, 0.5)
UPSAMPLING = ("transposed", "bilinear", "nearest")


class ConvBlock(nn.Sequential):
    """Twice convolution 3 x 3, BatchNorm, LeakyReLU (slope 0.01); dropout between the two.

    Activations overwrite what BatchNorm returns: a training step keeps a third less.
    """

    def __init__(self, before: int, after: int, dropout: float = 0.0):
        """From `before` to `after` channels; `dropout` is a probability."""
        super().__init__(
            nn.Conv2d(before, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(after, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(inplace=True),
        )


class UNetEncoder(nn.Module):
    """A convolution block at each level, max-pooling by 2 between levels."""

    def __init__(self, *, in_channels: int, widths: Sequence[int], dropouts: Sequence[float]):
        """`widths` and `dropouts` from shallow to deep."""
        super().__init__()
        befores = (in_channels, *widths[:-1])
        self.levels = nn.ModuleList(map(ConvBlock, befores, widths, dropouts))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features, shallow to deep: level i has H / 2^i x W / 2^i pixels."""
        check_size(image, 2 ** (len(self.levels) - 1))
        features = [self.levels[0](image)]
        for level in self.levels[1:]:
            features.append(level(functional.max_pool2d(features[-1], 2)))
        return features


class UNetDecoder(nn.Module):
    """Up by 2, concatenate the encoder's features of that level, convolution block; a head."""

    def __init__(self, *, classes: int, widths: Sequence[int], upsampling: str = "transposed"):
        """Build the way up.

        Args:
            classes: output channels.
            widths: of the encoder, shallow to deep.
            upsampling: "transposed" convolution; or a convolution 1 x 1 and "bilinear" or
                "nearest" interpolation, for methods whose decoders must differ (MC-Net+).
        """
        super().__init__()
        if upsampling not in UPSAMPLING:
            raise ValueError(
                f"upsampling must be one of {', '.join(UPSAMPLING)}, not {upsampling!r}"
            )
        deep, shallow = list(widths[:0:-1]), list(widths[-2::-1])
        pairs = list(zip(deep, shallow, strict=True))
        self.ups = nn.ModuleList(_up(before, after, upsampling) for before, after in pairs)
        self.blocks = nn.ModuleList(ConvBlock(2 * after, after) for after in shallow)
        self.head = nn.Conv2d(widths[0], classes, 3, padding=1)

    def levels(self, features: list[Tensor]) -> list[Tensor]:
        """Decoded features from deep (H / 8) to shallow (H), before the head."""
        decoded, current = [], features[-1]
        for up, block, skip in zip(self.ups, self.blocks, features[-2::-1], strict=True):
            current = block(torch.cat([skip, up(current)], dim=1))
            decoded.append(current)
        return decoded

    def forward(self, features: list[Tensor]) -> Tensor:
        """Logits of the encoder's features."""
        return self.head(self.levels(features)[-1])


class UNet2d(nn.Module):
    """U-Net: `B x in_channels x H x W` in [0, 1] to logits `B x classes x H x W`."""

    def __init__(
        self,
        *,
        classes: int,
        in_channels: int = 3,
        widths: Sequence[int] = WIDTHS,
        dropouts: Sequence[float] = DROPOUTS,
        upsampling: str = "transposed",
    ):
        """Build the network with torch's default initialisation.

        Args:
            classes: output channels, background included, at least 2.
            in_channels: channels of the images.
            widths: channels of each level, shallow to deep; L levels need sides that divide by
                2^(L - 1), 16 by default.
            dropouts: dropout probability of each level of the encoder; the decoder has none.
            upsampling: see `UNetDecoder`.

        Raises:
            ValueError: for fewer than two classes, or unequal numbers of widths and dropouts.
        """
        super().__init__()
        check_classes(classes)
        if len(widths) != len(dropouts):
            raise ValueError(
                f"dropouts must be one number a level: {len(widths)} widths, "
                f"{len(dropouts)} dropouts"
            )
        self.encoder = UNetEncoder(in_channels=in_channels, widths=widths, dropouts=dropouts)
        self.decoder = UNetDecoder(classes=classes, widths=widths, upsampling=upsampling)
        # Weights stored by channel last: the same output, about 2/3 of the time on CPUs.
        self.to(memory_format=torch.channels_last)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Features, shallow to deep.

        Raises:
            ValueError: H or W does not divide by 16 (2^(levels - 1)).
        """
        return self.encoder(image)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Logits `B x classes x H x W` of `encode`'s features."""
        return self.decoder(features)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the image."""
        return self.decode(self.encode(image))


def check_classes(classes: int) -> None:
    """Raise ValueError below two classes: the background is one of them."""
    if classes < 2:
        raise ValueError(f"classes counts the background and must be at least 2, got {classes}")


def check_size(image: Tensor, multiple: int) -> None:
    """Raise ValueError unless both sides of the image divide by `multiple`."""
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(
            f"image is {height} x {width}, but the network halves it to 1/{multiple}: resize or "
            f"pad both sides to multiples of {multiple}"
        )


def _up(before: int, after: int, upsampling: str) -> nn.Module:
    if upsampling == "transposed":
        return nn.ConvTranspose2d(before, after, 2, stride=2)
    corners = True if upsampling == "bilinear" else None
    return nn.Sequential(
        nn.Conv2d(before, after, 1),
        nn.Upsample(scale_factor=2, mode=upsampling, align_corners=corners),
    )
