"""A loss whose gradient is computed at once, so that its activations need not wait for the rest.

A step whose second loss comes from a second pass through the same networks would hold the
activations of both passes until the loop differentiates their sum. The gradient of a sum is the sum
of the gradients: the first can be taken, and its activations freed, before the second pass begins.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def with_gradient(loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """The same scalar, which only remembers its gradient at `parameters`.

    Differentiating it gives what differentiating `loss` would have given, once. What `loss` was
    computed from cannot be differentiated any more. In float16, whose small gradients live by the
    factor that the loop puts on the whole loss, `loss` is returned as it is.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not (torch.is_grad_enabled() and loss.requires_grad) or _in_float16(loss.device.type):
        return loss
    with torch.autocast(loss.device.type, enabled=False):  # as in the loop's backward pass
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    return _Remembered.apply(loss.detach(), gradients, *trained)


def _in_float16(device: str) -> bool:
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16


class _Remembered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, gradients, *parameters):
        ctx.save_for_backward(*gradients)
        return loss.clone()

    @staticmethod
    def backward(ctx, outer):
        return None, None, *(None if g is None else outer * g for g in ctx.saved_tensors)
