"""Schedules: pure functions of the run's fraction t in [0, 1], each a factor in [0, 1]."""

import math


def cosine(t: float, *, warmup: float = 0.0, floor: float = 0.0) -> float:
    """Half a cosine from 1 at the end of the warm-up down to ``floor`` at t = 1.

    Loshchilov and Hutter 2017 (SGDR, arXiv 1608.03983), one cycle.

    Args:
        t: fraction of the run, in [0, 1].
        warmup: fraction of the run over which the factor first rises linearly from 0 to 1.
        floor: factor at the end of the run.
    """
    _check(t, warmup)
    if t < warmup:
        return t / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (t - warmup) / (1 - warmup)))


def linear(t: float, *, warmup: float = 0.0, floor: float = 0.0) -> float:
    """Straight line from 1 at the end of the warm-up down to ``floor`` at t = 1.

    Args:
        t: fraction of the run, in [0, 1].
        warmup: fraction of the run over which the factor first rises linearly from 0 to 1.
        floor: factor at the end of the run.
    """
    _check(t, warmup)
    if t < warmup:
        return t / warmup
    return 1 - (1 - floor) * (t - warmup) / (1 - warmup)


def sigmoid_ramp_up(t: float, *, length: float = 1.0) -> float:
    """Weight of a consistency loss, exp(-5 (1 - t / length)^2) until t = length, then 1.

    Laine and Aila 2017 (temporal ensembling, arXiv 1610.02242). It starts at exp(-5) = 0.0067.

    Args:
        t: fraction of the run, in [0, 1].
        length: fraction of the run over which the weight rises, in [0, 1]; 0 for no ramp.
    """
    _check(t, 0.0)
    if not 0 <= length <= 1:
        raise ValueError(f"length must be in [0, 1], got {length}")
    return 1.0 if t >= length else math.exp(-5 * (1 - t / length) ** 2)


def _check(t: float, warmup: float) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"t is a fraction of the run and must be in [0, 1], got {t}")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a fraction of the run and must be in [0, 1), got {warmup}")
