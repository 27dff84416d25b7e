"""Tokens that are learned and join the keys and values of an attention."""

import torch
from torch import nn

# Half-width of the tokens' uniform start: sqrt(6 / (3 * 16 * 16 + 16)), as ESP-MedSAM's authors
# released it (Xavier's rule for a patch of 16 x 16 pixels and 3 colours).
TOKEN_RANGE = (6 / (3 * 16 * 16 + 16)) ** 0.5


def new_tokens(heads: int, count: int, channels: int) -> nn.Parameter:
    """Draw tokens heads x count x channels (of a head), uniform within +-`TOKEN_RANGE`."""
    return nn.Parameter(torch.empty(heads, count, channels).uniform_(-TOKEN_RANGE, TOKEN_RANGE))
