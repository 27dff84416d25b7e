"""Multiply-accumulate operations of one forward pass, counted by PyTorch while it runs."""

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(run: Callable[[], object]) -> int:
    """Multiply-accumulates of matrix products and convolutions in `run()`.

    Norms, activations and additions are not counted, as is usual. Attention runs unfused
    meanwhile, since the counter does not know every fused kernel.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two
