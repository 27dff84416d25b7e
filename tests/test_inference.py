"""Networks made ready to predict give the same logits."""

import pytest
import torch
from torch import nn

from lib.models.inference import fold_batch_norm, optimise_for_inference
from lib.training.co_training import build_students
from lib.training.mc_seg import McSegConfig


def with_statistics(module):
    """As after a training: no BatchNorm is the identity."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return module


def norms(module):
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize("released", [False, True])
def test_students_predict_the_same(released):
    torch.manual_seed(0)
    config = McSegConfig(classes=3, widths=(4, 4, 6, 6, 8), activated_fusion=released)
    students = with_statistics(build_students(config))
    ready = optimise_for_inference(students)
    assert students.training
    assert norms(students)
    assert norms(ready) == []
    assert not any(parameter.requires_grad for parameter in ready.parameters())
    image = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        for found, expected in zip(ready(image), students.eval()(image), strict=True):
            scale = expected.abs().max()
            torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)


def test_one_layer_by_hand():
    layers = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0)).eval()
    convolution, norm = layers
    for tensor, value in {
        convolution.weight: 3.0,
        convolution.bias: 1.0,
        norm.running_mean: 2.0,
        norm.running_var: 4.0,
        norm.weight: 5.0,
        norm.bias: 7.0,
    }.items():
        tensor.data.fill_(value)
    folded = fold_batch_norm(layers)[0]
    assert folded.weight.item() == pytest.approx(3 * 5 / 2)
    assert folded.bias.item() == pytest.approx((1 - 2) * 5 / 2 + 7)


def test_transposed_convolutions_fold_too():
    layers = with_statistics(
        nn.Sequential(nn.ConvTranspose2d(3, 2, 2, stride=2), nn.BatchNorm2d(2))
    )
    ready, image = optimise_for_inference(layers), torch.rand(1, 3, 4, 4)
    assert norms(ready) == []
    torch.testing.assert_close(ready(image), layers.eval()(image))


def test_what_cannot_fold_exactly_stays():
    shared = nn.Conv2d(2, 2, 1)
    used_twice = nn.Sequential(
        nn.Sequential(shared, nn.BatchNorm2d(2)), nn.Sequential(shared, nn.BatchNorm2d(2))
    )
    hooked = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    hooked[0].register_forward_hook(lambda module, inputs, output: output.abs())
    of_the_batch = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    apart = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2))
    for layers in (used_twice, hooked, of_the_batch, apart):
        ready, image = optimise_for_inference(layers), torch.randn(2, 2, 3, 3)
        assert len(norms(ready)) == len(norms(layers))
        torch.testing.assert_close(ready(image), layers.eval()(image))


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))
