"""KnowSAM's student: two different networks, and the module that fuses what they predict.

Huang et al. 2025, arXiv 2412.13742, section "Multi-view co-training". It is all that a trained
KnowSAM needs for a prediction.
"""

from typing import NamedTuple

from torch import Tensor, nn

from lib.models.hybrid_aggregation import HybridAggregation


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
