"""A teacher whose weights are the moving average of a student's.

Tarvainen and Valpola 2017, arXiv 1703.01780: theta'_t = alpha theta'_(t-1) + (1 - alpha) theta_t.
"""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def averaged_copy(student: nn.Module) -> nn.Module:
    """A teacher equal to the student, without gradients.

    In training mode its BatchNorm uses the statistics of its batch as any does, but keeps none of
    them: its running statistics are the student's, averaged like the weights, and so belong to
    the same images.
    """
    teacher = copy.deepcopy(student).requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 0.0
    return teacher


@torch.no_grad()
def move_average(teacher: nn.Module, student: nn.Module, *, decay: float) -> None:
    """Move the teacher towards the student: decay x teacher + (1 - decay) x student.

    Parameters and floating-point buffers are averaged; counters are copied. 0 copies everything.
    """
    own, other = teacher.state_dict(), student.state_dict()
    for name, value in own.items():
        if value.is_floating_point():
            value.lerp_(other[name], 1 - decay)
        else:
            value.copy_(other[name])


def early_decay(decay: float, step: int) -> float:
    """`decay`, but less at first: min(1 - 1 / (step + 1), decay) after step number `step`.

    So the teacher is the plain mean of all students so far until an exponential one is longer; it
    soon forgets its random start. From the authors' released code.
    """
    return min(1 - 1 / (step + 1), decay)
