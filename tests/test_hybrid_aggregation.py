import math

import pytest
import torch
from torch import nn

from lib.losses.co_training import (
    entropy_loss,
    last_class_consistency,
    mutual_consistency,
    pooled_dice_loss,
)
from lib.models.co_training import CoTraining
from lib.models.hybrid_aggregation import HybridAggregation, dissimilarity_map, entropy_map


def pixels(*probabilities):
    """1 x C x 1 x N logits of N pixels with these class probabilities."""
    return torch.tensor(probabilities).log().T[None, :, None, :]


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_entropy_map_by_hand():
    found = entropy_map(pixels([0.5, 0.5], [0.25, 0.75], [1.0, 1e-30]))
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found.shape == (1, 1, 1, 3)
    torch.testing.assert_close(found.flatten(), torch.tensor([math.log(2), quarter, 0.0]))
    four = entropy_map(torch.zeros(1, 4, 2, 2))
    torch.testing.assert_close(four, torch.full((1, 1, 2, 2), math.log(4)))


def test_dissimilarity_map_marks_the_classes_on_which_the_networks_differ():
    first = pixels([0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.4, 0.3, 0.3])
    second = pixels([0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1])
    found = dissimilarity_map(first.requires_grad_(), second)
    assert found[0, :, 0].T.tolist() == [[0, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert not found.requires_grad


def test_size_is_that_of_the_released_module():
    assert parameters(HybridAggregation(classes=2, activated_output=True)) == 40_548
    # Without the last BatchNorm's two numbers a class, with a bias instead.
    assert parameters(HybridAggregation(classes=2)) == 40_548 - 2


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    "views", [{"entropy": False}, {"dissimilarity": False}, {"predictions": False}, {}]
)
def test_every_view_can_be_switched_off(views, classes):
    torch.manual_seed(0)
    module = HybridAggregation(classes=classes, **views)
    first, second = (torch.randn(2, classes, 8, 8, requires_grad=True) for _ in range(2))
    logits = module(first, second)
    assert logits.shape == (2, classes, 8, 8)
    logits.square().mean().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []
    assert first.grad.abs().sum() > 0
    stems = {name.split(".")[0] for name, _ in module.named_parameters()} - {"join"}
    assert stems == {"entropy", "dissimilarity", "predictions"} - set(views)


def test_what_each_view_sees():
    seen = {}

    def watch(name):
        return lambda module, inputs: seen.__setitem__(name, inputs[0])

    first, second = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    entropy = torch.cat([entropy_map(first), entropy_map(second)], dim=1)
    dissimilarity = dissimilarity_map(first, second)
    for inverted in (False, True):
        module = HybridAggregation(classes=3, inverted_maps=inverted)
        for name in ("entropy", "dissimilarity", "predictions"):
            getattr(module, name).register_forward_pre_hook(watch(name))
        module(first, second)
        expected = (1 - entropy, 1 - dissimilarity) if inverted else (entropy, dissimilarity)
        torch.testing.assert_close(seen["entropy"], expected[0])
        torch.testing.assert_close(seen["dissimilarity"], expected[1])
        torch.testing.assert_close(seen["predictions"], torch.cat([first, second], dim=1))


def test_released_output_cannot_go_far_below_zero():
    torch.manual_seed(0)
    inputs = torch.randn(4, 2, 16, 16), torch.randn(4, 2, 16, 16)
    free = HybridAggregation(classes=2)
    bent = HybridAggregation(classes=2, activated_output=True)
    assert isinstance(free.join[-1], nn.Conv2d)
    logits = bent(*inputs)
    assert -logits.min() < logits.max()  # LeakyReLU shrinks what is below zero to a fifth


def test_no_view_and_one_class_are_refused():
    with pytest.raises(ValueError, match="switch on at least one of"):
        HybridAggregation(classes=2, entropy=False, dissimilarity=False, predictions=False)
    with pytest.raises(ValueError, match="classes counts the background"):
        HybridAggregation(classes=1)


def test_co_training_gives_both_predictions_and_their_fusion():
    first, second = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    students = CoTraining(first=first, second=second, fusion=HybridAggregation(classes=2)).eval()
    image = torch.rand(2, 3, 8, 8)
    found = students(image)
    torch.testing.assert_close(found.first, first(image))
    torch.testing.assert_close(found.second, second(image))
    torch.testing.assert_close(found.fused, students.fusion(first(image), second(image)))


def test_mutual_consistency_by_hand():
    first, second = pixels([0.5, 0.5], [0.2, 0.8]), pixels([0.25, 0.75], [0.2, 0.8])
    log = math.log
    agree = -(0.2 * log(0.2) + 0.8 * log(0.8))
    a_from_b = (-log(0.5) + agree) / 2
    b_from_a = (-(0.5 * log(0.25) + 0.5 * log(0.75)) + agree) / 2
    assert mutual_consistency(first, second).item() == pytest.approx(a_from_b + b_from_a, rel=1e-5)


def test_in_mutual_consistency_both_networks_learn_from_a_fixed_target():
    first, second = pixels([0.5, 0.5]).requires_grad_(), pixels([0.25, 0.75]).requires_grad_()
    mutual_consistency(first, second).backward()
    # The gradient of a cross-entropy is prediction - target; that of a target would add to it.
    torch.testing.assert_close(first.grad.flatten(), torch.tensor([0.25, -0.25]))
    torch.testing.assert_close(second.grad.flatten(), torch.tensor([-0.25, 0.25]))


def test_entropy_loss_by_hand():
    logits = pixels([0.5, 0.5], [0.25, 0.75])
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    expected = (math.log(2) + quarter) / 2
    assert entropy_loss(logits).item() == pytest.approx(expected, rel=1e-6)
    assert entropy_loss(logits, bits=True).item() == pytest.approx(expected / math.log(2), rel=1e-6)
    # "Bits" of four classes reach 2: the released code divides by ln 2, not by ln 4.
    assert entropy_loss(torch.zeros(1, 4, 1, 1), bits=True).item() == pytest.approx(2)


def test_released_consistency_teaches_the_first_network_one_class_alone():
    first, second = pixels([0.5, 0.5]).requires_grad_(), pixels([0.25, 0.75]).requires_grad_()
    loss = last_class_consistency(first, second)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    loss.backward()
    torch.testing.assert_close(first.grad.flatten(), torch.tensor([0.25, -0.25]))
    assert second.grad is None


def test_pooled_dice_by_hand():
    logits = pixels([0.5, 0.5], [0.2, 0.8])
    mask = torch.tensor([[[0, 1]]])
    background = 1 - 2 * 0.5 / (0.25 + 0.04 + 1)
    object_ = 1 - 2 * 0.8 / (0.25 + 0.64 + 1)
    expected = (background + object_) / 2
    assert pooled_dice_loss(logits, mask).item() == pytest.approx(expected, rel=1e-6)
    # Pooled: two images are one large image.
    both = pooled_dice_loss(logits.expand(2, -1, -1, -1), mask.expand(2, -1, -1))
    assert both.item() == pytest.approx(expected, rel=1e-6)
