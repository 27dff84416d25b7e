import math

import pytest
import torch
from torch.nn import functional

from lib.losses.segmentation import bce_dice, cross_entropy, dice_loss


def logits_of(probability):
    """B x H x W foreground probabilities as two-class logits, in a shifted (softmax-equal) form."""
    probability = torch.as_tensor(probability, dtype=torch.float64)
    return torch.stack([(1 - probability).log() + 3, probability.log() + 3], dim=1)


def test_hand_computed_binary_value():
    # One image of 1 x 4 pixels: p = .8 .5 .4 .1, truth = 1 1 0 0.
    logits = logits_of([[[0.8, 0.5, 0.4, 0.1]]])
    mask = torch.tensor([[[1, 1, 0, 0]]])
    entropy = -(math.log(0.8) + math.log(0.5) + math.log(0.6) + math.log(0.9)) / 4
    dice = 1 - (2 * 1.3 + 1) / (1.8 + 2 + 1)
    assert cross_entropy(logits, mask).item() == pytest.approx(entropy, abs=1e-6)
    assert dice_loss(logits, mask).item() == pytest.approx(dice, abs=1e-6)
    assert bce_dice(logits, mask).item() == pytest.approx(0.5 * entropy + dice, abs=1e-6)
    assert bce_dice(logits, mask, bce=2, dice=0).item() == pytest.approx(2 * entropy, abs=1e-6)


def test_hand_computed_three_classes_leaves_background_out_of_dice():
    # 1 x 2 pixels of classes 1 and 2; the probabilities of the three classes by pixel.
    probability = torch.tensor([[0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
    logits = probability.log().T.reshape(1, 3, 1, 2)
    mask = torch.tensor([[[1, 2]]])
    one = 1 - (2 * 0.7 + 1) / ((0.7 + 0.3) + 1 + 1)
    two = 1 - (2 * 0.4 + 1) / ((0.1 + 0.4) + 1 + 1)
    assert dice_loss(logits, mask).item() == pytest.approx((one + two) / 2, abs=1e-6)
    entropy = -(math.log(0.7) + math.log(0.4)) / 2
    assert cross_entropy(logits, mask).item() == pytest.approx(entropy, abs=1e-6)


def test_two_class_cross_entropy_is_binary_cross_entropy_of_the_logit_difference():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 5, 7, generator=generator, requires_grad=True)
    mask = torch.randint(0, 2, (3, 5, 7), generator=generator)
    ours = cross_entropy(logits, mask).mean()
    binary = functional.binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], mask.float())
    torch.testing.assert_close(ours, binary)
    ours_gradient, binary_gradient = (torch.autograd.grad(x, logits)[0] for x in (ours, binary))
    torch.testing.assert_close(ours_gradient, binary_gradient)


def test_images_count_equally_and_apart():
    # A perfect large object and a missed small one: Dice over the whole batch would hide the miss.
    mask = torch.zeros(2, 8, 8, dtype=torch.int64)
    mask[0], mask[1, 0, :2] = 1, 1
    confident = torch.where(mask == 1, 20.0, -20.0)
    confident[1] = -20.0
    logits = torch.stack([-confident, confident], dim=1)
    per_image = dice_loss(logits, mask)
    assert per_image.tolist() == pytest.approx([0, 1 - 1 / 3], abs=1e-6)
    assert bce_dice(logits, mask, bce=0).item() == pytest.approx(per_image.mean().item())


def test_empty_mask_costs_nothing_when_nothing_is_predicted_and_pulls_down_otherwise():
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    nothing = torch.stack([torch.full((1, 4, 4), 30.0), torch.full((1, 4, 4), -30.0)], dim=1)
    assert dice_loss(nothing, mask).item() == pytest.approx(0, abs=1e-6)
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)  # p = 1/2 on 16 pixels
    loss = dice_loss(logits, mask)
    assert loss.item() == pytest.approx(1 - 1 / 9, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    # d/dz1 of 1 - 1/(S + 1) = p (1 - p) / (S + 1)^2 with S = 8
    torch.testing.assert_close(gradient[0, 1], torch.full((4, 4), 0.25 / 81))


def test_invalid_images_are_left_out():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 2, 6, 6, generator=generator, requires_grad=True)
    mask = torch.randint(0, 2, (4, 6, 6), generator=generator)
    valid = torch.tensor([True, False, True, False])
    loss = bce_dice(logits, mask, valid=valid)
    torch.testing.assert_close(loss, bce_dice(logits[valid], mask[valid]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[~valid] == 0).all()
    assert (gradient[valid] != 0).any()


def test_no_valid_image_is_exactly_zero_with_zero_gradient():
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    loss = bce_dice(
        logits, torch.ones(2, 4, 4, dtype=torch.int64), valid=torch.zeros(2, dtype=torch.bool)
    )
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient == 0).all()


def test_half_precision_logits_are_computed_in_float32():
    logits = torch.full((1, 2, 300, 300), 0.25, dtype=torch.float16)  # 90000 > the largest float16
    loss = bce_dice(logits, torch.ones(1, 300, 300, dtype=torch.int64))
    dice = 1 - (90_000 + 1) / (45_000 + 90_000 + 1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.5 * math.log(2) + dice, abs=1e-5)


@pytest.mark.parametrize(
    ("logits", "mask", "message"),
    [
        ((2, 1, 4, 4), (2, 4, 4), "C >= 2"),
        ((2, 2, 4, 4), (2, 1, 4, 4), r"mask must be B x H x W = \(2, 4, 4\)"),
        ((2, 2, 4, 4), (2, 8, 8), "mask must be"),
    ],
)
def test_wrong_shapes_are_named(logits, mask, message):
    with pytest.raises(ValueError, match=message):
        bce_dice(torch.zeros(logits), torch.zeros(mask, dtype=torch.int64))


def test_valid_of_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="one bool an image"):
        bce_dice(
            torch.zeros(2, 2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64), valid=torch.ones(2, 1)
        )
