"""KnowSAM's student: two different networks, and the module that fuses what they predict.

Huang et al. 2025, arXiv 2412.13742, section "Multi-view co-training". It is all that a trained
KnowSAM needs for a prediction.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from lib.models.hybrid_aggregation import HybridAggregation
from lib.models.unet_2d import WIDTHS, UNet2d
from lib.models.vnet_2d import VNet2d


class CoPrediction(NamedTuple):
    """Logits of both subnets and of their fusion, Y_a, Y_b and Y_f, each `B x C x H x W`."""

    first: Tensor
    second: Tensor
    fused: Tensor


class CoTraining(nn.Module):
    """Subnets F_A and F_B and the hybrid aggregation module."""

    def __init__(self, *, first: nn.Module, second: nn.Module, fusion: HybridAggregation):
        """Join them; `first` and `second` map `B x 3 x H x W` in [0, 1] to logits."""
        super().__init__()
        self.first, self.second, self.fusion = first, second, fusion

    def forward(self, image: Tensor) -> CoPrediction:
        """All three predictions; the fused one is the student's answer."""
        first, second = self.first(image), self.second(image)
        return CoPrediction(first, second, self.fusion(first, second))


def build_co_training(
    *,
    classes: int = 2,
    widths: Sequence[int] = WIDTHS,
    skips_before_convolutions: bool = False,
    entropy: bool = True,
    dissimilarity: bool = True,
    predictions: bool = True,
    inverted_maps: bool = False,
    activated_output: bool = False,
) -> CoTraining:
    """F_A = U-Net, F_B = V-Net, and the hybrid aggregation of their predictions.

    Args:
        classes: background included, at least 2.
        widths: channels of the five levels of both subnets.
        skips_before_convolutions: of `VNet2d`.
        entropy, dissimilarity, predictions, inverted_maps, activated_output: of
            `HybridAggregation`.
    """
    return CoTraining(
        first=UNet2d(classes=classes, widths=widths),
        second=VNet2d(
            classes=classes, widths=widths, skips_before_convolutions=skips_before_convolutions
        ),
        fusion=HybridAggregation(
            classes=classes,
            entropy=entropy,
            dissimilarity=dissimilarity,
            predictions=predictions,
            inverted_maps=inverted_maps,
            activated_output=activated_output,
        ),
    )
