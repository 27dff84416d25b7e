"""Hybrid aggregation of two networks' predictions: where each is unsure, where they disagree.

Huang et al. 2025 (KnowSAM, arXiv 2412.13742), equations 1 to 3.
"""

import torch
from torch import Tensor, nn

STEM = 16
WIDTH = 64


def entropy_map(logits: Tensor) -> Tensor:
    """Entropy of each pixel's class distribution, equation 1.

    Args:
        logits: `B x C x H x W`.

    Returns:
        `B x 1 x H x W` in nats, from 0 (sure) to ln C (all classes equally likely).
    """
    log_probabilities = logits.float().log_softmax(dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1, keepdim=True)


def dissimilarity_map(first: Tensor, second: Tensor) -> Tensor:
    """Where two networks disagree, class by class: B(Y_a) xor B(Y_b), equation 2.

    B marks a class whose probability is above 1/2; with more than two classes a pixel may have
    none.

    Args:
        first, second: logits `B x C x H x W`.

    Returns:
        `B x C x H x W` of 0 (they agree) and 1; it carries no gradient.
    """
    a, b = (logits.detach().float().softmax(dim=1) > 0.5 for logits in (first, second))
    return (a ^ b).float()


class HybridAggregation(nn.Module):
    """Fuse two networks' logits, equation 3: Y_f = CBL(cat{CBL(H_a, H_b), CBL(M), CBL(Y_a, Y_b)}).

    CBL is convolution, BatchNorm, LeakyReLU. Each view has a stem of its own; what they find is
    joined by two more convolutions, the last of which gives the logits.
    """

    def __init__(
        self,
        *,
        classes: int,
        entropy: bool = True,
        dissimilarity: bool = True,
        predictions: bool = True,
        inverted_maps: bool = False,
        activated_output: bool = False,
    ):
        """Build the views that are asked for (their ablation is the paper's Table IV).

        Args:
            classes: channels of the logits, background included, at least 2.
            entropy: look at both entropy maps.
            dissimilarity: look at the dissimilarity map.
            predictions: look at the logits.
            inverted_maps: True hands over 1 - H and 1 - M, as the released code does; False H and
                M, as equation 3 says.
            activated_output: True ends in BatchNorm and LeakyReLU, as the released code does
                (40,548 parameters for two classes); False ends in the convolution, so that logits
                may take any value.

        Raises:
            ValueError: for fewer than two classes, or no view at all.
        """
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes counts the background and must be at least 2, got {classes}")
        if not (entropy or dissimilarity or predictions):
            raise ValueError("switch on at least one of entropy, dissimilarity and predictions")
        self.inverted_maps = inverted_maps
        self.dissimilarity = _stem(classes, STEM) if dissimilarity else None
        self.entropy = _stem(2, STEM) if entropy else None
        self.predictions = _stem(2 * classes, 2 * STEM) if predictions else None
        joined = STEM * (dissimilarity + entropy + 2 * predictions)
        last = nn.Conv2d(WIDTH, classes, 3, padding=1, bias=not activated_output)
        self.join = nn.Sequential(
            *_cbl(joined, WIDTH, kernel=3),
            last,
            *(_norm_and_activation(classes) if activated_output else ()),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fused logits `B x C x H x W` of two networks' logits of that shape."""
        views = []
        if self.dissimilarity is not None:
            views.append(self.dissimilarity(self._map(dissimilarity_map(first, second))))
        if self.entropy is not None:
            both = torch.cat([entropy_map(first), entropy_map(second)], dim=1)
            views.append(self.entropy(self._map(both)))
        if self.predictions is not None:
            views.append(self.predictions(torch.cat([first, second], dim=1)))
        return self.join(torch.cat(views, dim=1))

    def _map(self, values: Tensor) -> Tensor:
        return 1 - values if self.inverted_maps else values


def _stem(before: int, after: int) -> nn.Sequential:
    """A 3 x 3 convolution to `STEM` channels, then one of 1 x 1 to `after`, both as CBL."""
    return nn.Sequential(*_cbl(before, STEM, kernel=3), *_cbl(STEM, after, kernel=1))


def _cbl(before: int, after: int, *, kernel: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
    return convolution, *_norm_and_activation(after)


def _norm_and_activation(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.LeakyReLU(0.2, inplace=True)
