"""Losses between predictions, against values worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional

from lib.losses.consistency import (
    confident_cross_entropy,
    masked_cross_entropy,
    masked_dice_loss,
    pseudo_labels,
    pyramid_consistency,
    sharpen,
    squared_error,
)
from lib.losses.segmentation import dice_loss


def logits_of(*pixels):
    """1 x C x 1 x W logits whose softmax is the given distribution at each of W pixels."""
    return torch.tensor(pixels, dtype=torch.float64).log().T[None, :, None].float()


def probabilities_of(*pixels):
    return logits_of(*pixels).softmax(1)


def test_squared_error_is_the_mean_over_pixels_and_classes():
    one = probabilities_of((0.5, 0.5), (0.9, 0.1)).requires_grad_()
    other = probabilities_of((0.7, 0.3), (0.6, 0.4)).requires_grad_()
    value = squared_error(one, other)
    assert value.item() == pytest.approx((0.04 + 0.09) / 2)
    value.backward()
    assert other.grad is None
    assert one.grad is not None


def test_squared_error_of_the_kept_pixels():
    one, other = probabilities_of((0.5, 0.5), (0.9, 0.1)), probabilities_of((0.7, 0.3), (0.6, 0.4))
    keep = torch.tensor([[[False, True]]])
    assert squared_error(one, other, keep=keep).item() == pytest.approx(0.09)
    assert squared_error(one, other, keep=~keep).item() == pytest.approx(0.04)
    assert squared_error(one, other, keep=torch.zeros_like(keep)) == 0


def test_confident_cross_entropy_counts_confident_pixels_over_all():
    # Three classes; the second pixel's 0.8 is below the threshold.
    target = logits_of((0.02, 0.96, 0.02), (0.8, 0.1, 0.1)).requires_grad_()
    student = logits_of((0.2, 0.5, 0.3), (0.1, 0.1, 0.8)).requires_grad_()
    value = confident_cross_entropy(student, target, threshold=0.95)
    assert value.item() == pytest.approx(-math.log(0.5) / 2)
    value.backward()
    assert target.grad is None
    assert student.grad[..., 1].abs().sum() == 0
    everything = confident_cross_entropy(student, target, threshold=0.0)
    assert everything.item() == pytest.approx((-math.log(0.5) - math.log(0.1)) / 2)


def test_pseudo_labels():
    labels, confident = pseudo_labels(logits_of((0.02, 0.96, 0.02), (0.8, 0.1, 0.1)), threshold=0.9)
    assert labels.tolist() == [[[1, 0]]]
    assert confident.tolist() == [[[True, False]]]


def test_masked_cross_entropy_is_a_mean_over_the_region():
    logits, mask = logits_of((0.5, 0.5), (0.9, 0.1), (0.2, 0.8)), torch.tensor([[[0, 1, 1]]])
    keep = torch.tensor([[[True, False, True]]])
    expected = -(math.log(0.5) + math.log(0.8)) / 2
    assert masked_cross_entropy(logits, mask, keep).item() == pytest.approx(expected)
    assert masked_cross_entropy(logits, mask, torch.zeros_like(keep)) == 0


def test_masked_dice_is_the_dice_of_the_region():
    logits, mask = logits_of((0.5, 0.5), (0.9, 0.1), (0.2, 0.8)), torch.tensor([[[0, 1, 1]]])
    keep = torch.tensor([[[True, False, True]]])
    # Region: p = .5, .8 and y = 0, 1: 1 - (2 x .8 + 1) / (1.3 + 1 + 1).
    assert masked_dice_loss(logits, mask, keep).item() == pytest.approx(1 - 2.6 / 3.3)
    whole = masked_dice_loss(logits, mask, torch.ones_like(keep))
    torch.testing.assert_close(whole, dice_loss(logits, mask).mean())


def test_masked_dice_takes_several_images_of_four_classes_as_one():
    torch.manual_seed(0)
    logits, mask = torch.randn(3, 4, 6, 6), torch.randint(0, 4, (3, 6, 6))
    keep = torch.rand(3, 6, 6) > 0.5
    wide = logits.transpose(0, 1).reshape(1, 4, 18, 6), mask.reshape(1, 18, 6)
    found = masked_dice_loss(logits, mask, keep)
    torch.testing.assert_close(found, masked_dice_loss(*wide, keep.reshape(1, 18, 6)))


def test_pyramid_consistency_by_hand():
    # One pixel, two scales: p = (.8, .2) and (.4, .6), so p_c = (.6, .4).
    scales = [logits_of((0.8, 0.2)), logits_of((0.4, 0.6))]
    first = 0.8 * math.log(0.8 / 0.6) + 0.2 * math.log(0.2 / 0.4)
    second = 0.4 * math.log(0.4 / 0.6) + 0.6 * math.log(0.6 / 0.4)
    rectified, uncertainty = pyramid_consistency(scales)
    assert rectified.item() == pytest.approx(0.04, rel=1e-5)  # one pixel: its weight cancels
    assert uncertainty.item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_pyramid_consistency_discounts_doubtful_pixels():
    # The second pixel's scales agree, so its weight is 1; the first one's is exp(-D) < 1.
    scales = [logits_of((0.8, 0.2), (0.7, 0.3)), logits_of((0.4, 0.6), (0.7, 0.3))]
    doubts = [
        0.8 * math.log(0.8 / 0.6) + 0.2 * math.log(0.2 / 0.4),
        0.4 * math.log(0.4 / 0.6) + 0.6 * math.log(0.6 / 0.4),
    ]
    expected = sum(0.04 * math.exp(-d) / (math.exp(-d) + 1) for d in doubts) / 2
    rectified, _ = pyramid_consistency(scales)
    assert rectified.item() == pytest.approx(expected, rel=1e-5)
    assert pyramid_consistency([scales[0], scales[0]])[0].item() == pytest.approx(0, abs=1e-9)


def test_pyramid_consistency_survives_certainty():
    scales = [torch.tensor([[[[200.0]], [[-200.0]]]]).requires_grad_() for _ in range(2)]
    rectified, uncertainty = pyramid_consistency(scales)
    (rectified + uncertainty).backward()
    assert torch.isfinite(scales[0].grad).all()


def test_sharpening_by_hand():
    # T = 1/2: p^2 / (p^2 + (1 - p)^2).
    values = sharpen(torch.tensor([0.5, 0.8, 0.0, 1.0]), temperature=0.5)
    assert values.tolist() == pytest.approx([0.5, 0.64 / 0.68, 0.0, 1.0])
    assert sharpen(torch.tensor(0.6), temperature=0.1).item() == pytest.approx(
        0.6**10 / (0.6**10 + 0.4**10)
    )
    assert sharpen(torch.tensor(0.3), temperature=1.0).item() == pytest.approx(0.3)


def test_sharpening_to_the_extreme_stays_finite():
    values = sharpen(torch.tensor([0.5, 0.55, 0.2]), temperature=0.005)
    assert values.tolist() == pytest.approx([0.5, 1.0, 0.0])


def test_cross_entropy_reference_agrees():
    """At threshold 0 and with hard targets FixMatch's loss is plain cross-entropy."""
    torch.manual_seed(1)
    student, target = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(
        confident_cross_entropy(student, target, threshold=0.0),
        functional.cross_entropy(student, target.argmax(1)),
    )
