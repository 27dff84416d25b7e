"""Which loss teaches which part: the size of each loss's gradient at each part of a method."""

import math
from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor, nn


def gradient_table(losses: Mapping[str, Tensor], parts: Mapping[str, nn.Module]) -> pd.DataFrame:
    """Norm of the gradient of each loss (row) at each part's parameters (column).

    Nothing is changed: neither parameters nor their ``grad``. The losses' graphs are kept.

    Args:
        losses: name -> scalar with a graph, such as entries of a method's ``step``.
        parts: name -> module with trainable parameters.

    Returns:
        Text with two significant digits; "-" where no gradient arrives, or only zeros.

    Raises:
        ValueError: a part has no trainable parameter: its column would mean nothing.
    """
    parameters = {}
    for name, part in parts.items():
        parameters[name] = [p for p in part.parameters() if p.requires_grad]
        if not parameters[name]:
            raise ValueError(f"the part {name!r} has no trainable parameter: leave it out")
    table = {
        name: [_text(_norm(loss, chosen)) for loss in losses.values()]
        for name, chosen in parameters.items()
    }
    return pd.DataFrame(table, index=pd.Index(losses, name="loss"))


def _norm(loss: Tensor, parameters: list[nn.Parameter]) -> float:
    if not loss.requires_grad:
        return 0.0
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return math.sqrt(sum(float(g.square().sum()) for g in found if g is not None))


def _text(norm: float) -> str:
    return "-" if norm == 0 else f"{norm:.2g}"
