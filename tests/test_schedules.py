import math

import pytest

from lib.training.schedules import cosine, linear, sigmoid_ramp_up


@pytest.mark.parametrize(
    ("t", "factor"),
    [(0, 1), (1 / 3, 0.75), (1 / 2, 0.5), (2 / 3, 0.25), (1, 0)],
)
def test_cosine(t, factor):
    assert cosine(t) == pytest.approx(factor)


def test_cosine_with_warm_up_and_floor():
    # Up to t = .2 a line; then half a cosine over the remaining .8, from 1 to .1.
    assert cosine(0, warmup=0.2, floor=0.1) == 0
    assert cosine(0.05, warmup=0.2, floor=0.1) == pytest.approx(0.25)
    assert cosine(0.2, warmup=0.2, floor=0.1) == pytest.approx(1)
    assert cosine(0.6, warmup=0.2, floor=0.1) == pytest.approx(0.55)
    assert cosine(1, warmup=0.2, floor=0.1) == pytest.approx(0.1)


def test_linear():
    assert [linear(t) for t in (0, 0.25, 1)] == pytest.approx([1, 0.75, 0])
    assert linear(0.1, warmup=0.5) == pytest.approx(0.2)
    assert linear(0.75, warmup=0.5, floor=0.2) == pytest.approx(0.6)
    assert linear(1, warmup=0.5, floor=0.2) == pytest.approx(0.2)


def test_sigmoid_ramp_up():
    assert sigmoid_ramp_up(0) == pytest.approx(math.exp(-5))
    assert sigmoid_ramp_up(0.5) == pytest.approx(math.exp(-1.25))
    assert sigmoid_ramp_up(1) == 1
    assert sigmoid_ramp_up(0.2, length=0.4) == pytest.approx(math.exp(-1.25))
    assert sigmoid_ramp_up(0.9, length=0.4) == 1


@pytest.mark.parametrize("schedule", [cosine, linear, sigmoid_ramp_up])
@pytest.mark.parametrize("t", [-0.01, 1.01, math.nan])
def test_t_must_be_a_fraction(schedule, t):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        schedule(t)


@pytest.mark.parametrize("schedule", [cosine, linear])
def test_warm_up_must_leave_a_run(schedule):
    with pytest.raises(ValueError, match=r"warmup .* must be in \[0, 1\)"):
        schedule(0.5, warmup=1)


def test_ramp_up_length_is_a_share_and_0_is_no_ramp():
    assert sigmoid_ramp_up(0.0, length=0) == 1
    with pytest.raises(ValueError, match=r"length must be in \[0, 1\]"):
        sigmoid_ramp_up(0.5, length=1.5)
