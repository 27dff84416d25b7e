"""A network made ready to predict: BatchNorm folded into the convolutions, channels stored last.

In evaluation mode BatchNorm is a fixed scale and shift of each channel, and so is a part of the
convolution before it: W' = W g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta, with the
running mean m and variance v and the learned g and beta. The output stays the same to rounding.
"""

import contextlib
import copy
import itertools
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


@contextlib.contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every submodule is in its own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def optimise_for_inference(module: nn.Module) -> nn.Module:
    """A copy of `module` for predictions alone, with the same output; `module` stays as it is.

    Give it the networks that a prediction runs, such as `method.students`, not a whole method. The
    copy is in evaluation mode and its parameters take no gradient. Run it in
    `torch.inference_mode()`.
    """
    ready = fold_batch_norm(copy.deepcopy(module).eval()).requires_grad_(False)
    return ready.to(memory_format=torch.channels_last)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold every BatchNorm that follows a convolution in an `nn.Sequential`; changes `module`.

    There alone the order of the layers is sure to be the order in which they run. Layers with
    hooks, convolutions that stand in several places, and BatchNorm without running statistics are
    left alone.

    Raises:
        ValueError: `module` is in training mode, where BatchNorm depends on the batch.
    """
    if any(part.training for part in module.modules()):
        raise ValueError("module is in training mode: call module.eval() before folding")
    places = [child for part in module.modules() for child in part._modules.values()]
    for part in module.modules():
        if not isinstance(part, nn.Sequential):
            continue
        names = list(part._modules)
        for before, after in itertools.pairwise(names):
            convolution, norm = part._modules[before], part._modules[after]
            if _folds(convolution, norm) and places.count(convolution) == 1:
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                part._modules[before] = fuse_conv_bn_eval(convolution, norm, transposed)
                part._modules[after] = nn.Identity()
    return module


def _folds(convolution: nn.Module, norm: nn.Module) -> bool:
    return (
        type(convolution) in (nn.Conv2d, nn.ConvTranspose2d)
        and type(norm) is nn.BatchNorm2d
        and norm.running_mean is not None
        and not (convolution._forward_hooks or norm._forward_hooks or norm._forward_pre_hooks)
    )
