"""Learnable prompts: two tokens for each class, read off SAM's image embedding.

Huang et al. 2025 (KnowSAM, arXiv 2412.13742), equation 6: P_b = psi(embedding). A light network
psi takes the place of the user who clicks; its tokens go to SAM's mask decoder as sparse prompts
as they are, in the place where a box has its two corners.
"""

import torch
from torch import Tensor, nn

NORMS = ("batch", "group")
GROUPS = 8


class LearnablePrompts(nn.Module):
    """The learnable prompt strategy (LPS): one small network a class.

    11,156,992 parameters for two classes at 256 channels.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int = 256,
        tokens: int = 2,
        norm: str = "batch",
        dropout: float = 0.1,
    ):
        """Build the networks.

        Args:
            classes: background included; each gets its own prompt.
            channels: L, channels of SAM's image embedding and of its prompts (256 in Meta's SAM).
            tokens: N, tokens a class.
            norm: "batch" for BatchNorm, as the paper's code; "group" for GroupNorm, with which a
                sample's prompt does not depend on the others of its batch.
            dropout: in the convolution blocks and in the MLP.

        Raises:
            ValueError: an unknown norm, or channels that do not divide into the groups.
        """
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
        if norm == "group" and channels % GROUPS:
            raise ValueError(f'norm="group" needs channels that divide by {GROUPS}, not {channels}')
        self.tokens = tokens
        self.networks = nn.ModuleList(
            _network(channels, tokens, norm, dropout) for _ in range(classes)
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """Tokens `B x classes x N x L` of the image embedding `B x L x h x w` (h, w >= 4)."""
        tokens = torch.stack([network(embedding) for network in self.networks], dim=1)
        return tokens.unflatten(-1, (self.tokens, embedding.shape[1]))


def _network(channels: int, tokens: int, norm: str, dropout: float) -> nn.Sequential:
    """Four convolution blocks, halved before the second and the fourth; average; MLP."""

    def block() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            _norm(norm, channels),
            nn.LeakyReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(channels, channels, 3, padding=1),
            _norm(norm, channels),
            nn.LeakyReLU(),
        )

    return nn.Sequential(
        block(),
        nn.MaxPool2d(2),
        block(),
        block(),
        nn.MaxPool2d(2),
        block(),
        nn.Conv2d(channels, channels, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 4 * channels),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(4 * channels, tokens * channels),
        nn.Dropout(dropout),
    )


def _norm(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(GROUPS, channels)
