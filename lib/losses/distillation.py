"""SAM-induced knowledge distillation: soft targets from a teacher's logits.

Huang et al. 2025 (KnowSAM, arXiv 2412.13742), equations 9 and 10, after Hinton et al. 2015
(arXiv 1503.02531).
"""

from torch import Tensor

TEMPERATURE = 10.0


def distillation_loss(
    student: Tensor, teacher: Tensor, *, temperature: float = TEMPERATURE, pairs: bool = False
) -> Tensor:
    """T^2 x KL(teacher || student) of the class distributions at temperature T, mean over pixels.

    The factor T^2 keeps the size of the gradient when T changes: soft targets scale it by 1 / T^2.

    Args:
        student: logits `B x C x H x W`; the only ones that get a gradient.
        teacher: logits of the same shape, in any floating type (computed in float32).
        temperature: T > 0; the logits are divided by it, so that above 1 the teacher's small
            probabilities count more.
        pairs: take the softmax over the classes two by two, (0, 1), (2, 3), ..., and the mean over
            all pairs, as the released code does. With two classes it is the same.

    Returns:
        A scalar >= 0; 0 where student and teacher agree.

    Raises:
        ValueError: unequal shapes, fewer than two classes, an odd number of them in pairs, or a
            temperature that is not positive.
    """
    if student.shape != teacher.shape or student.ndim != 4 or student.shape[1] < 2:
        raise ValueError(
            "student and teacher must be logits B x C x H x W of one shape with C >= 2, got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if pairs:
        if student.shape[1] % 2:
            raise ValueError(f"{student.shape[1]} classes do not fall into pairs: leave out pairs")
        student, teacher = (_in_pairs(logits) for logits in (student, teacher))
    log_student = (student.float() / temperature).log_softmax(dim=1)
    log_teacher = (teacher.detach().float() / temperature).log_softmax(dim=1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)
    return temperature**2 * divergence.mean()


def _in_pairs(logits: Tensor) -> Tensor:
    """`B x C x H x W` to `B C/2 x 2 x H x W`."""
    return logits.unflatten(1, (-1, 2)).flatten(0, 1)
