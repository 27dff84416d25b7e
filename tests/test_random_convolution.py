"""Random networks restyle an image: its shapes stay, and draws depend on the generator alone."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from lib.data.random_convolution import LAYERS, SLOPE, WIDTH, random_convolution


def halves(size=32):
    """Two regions of constant colour, the left and the right half."""
    image = torch.empty(3, size, size)
    image[:, :, : size // 2] = torch.tensor([0.7, 0.4, 0.3])[:, None, None]
    image[:, :, size // 2 :] = torch.tensor([0.5, 0.5, 0.2])[:, None, None]
    return image


def noisy(channels=3, size=24):
    return 0.5 + 0.05 * torch.randn(
        channels, size, size, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("seed", range(6))
def test_an_even_region_stays_even_away_from_its_border(seed):
    image = halves()
    found = random_convolution(np.random.default_rng(seed), image)
    inside = found[:, :, : 16 - LAYERS]  # each layer looks one pixel far
    assert torch.allclose(inside, inside[:, :1, :1].expand_as(inside), atol=1e-5)
    assert not torch.allclose(found, image, atol=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_deviation_stay(channels):
    image = noisy(channels)
    found = random_convolution(np.random.default_rng(1), image)
    assert found.shape == image.shape
    assert torch.allclose(found.mean(), image.mean(), atol=1e-5)
    assert torch.allclose(found.std(), image.std(), atol=1e-5)


def test_it_is_a_mixture_with_a_network_of_torch():
    """The same draws in torch.nn's layers."""
    image, rng = noisy(), np.random.default_rng(5)
    widths, layers = [3, *[WIDTH] * (LAYERS - 1), 3], []
    answer = (image - image.mean())[None]
    for before, after in itertools.pairwise(widths):
        side = 1 if rng.random() < 0.5 else 3
        layer = nn.Conv2d(before, after, side, padding="same", padding_mode="replicate", bias=False)
        weight = rng.standard_normal((after, before, side, side), dtype=np.float32)
        layer.weight.data = torch.from_numpy(weight) * (before * side * side) ** -0.5
        answer = layer(answer).detach()
        offset = rng.standard_normal((after, 1, 1), dtype=np.float32)
        answer = answer + torch.from_numpy(offset) * answer.std()
        if len(layers) < LAYERS - 1:
            answer = nn.LeakyReLU(SLOPE)(answer)
        layers.append(layer)
    share = rng.random()
    styled = (answer[0] - answer.mean()) / answer.std() * image.std() + image.mean()
    mixed = (1 - share) * image + share * styled
    expected = (mixed - mixed.mean()) / mixed.std() * image.std() + image.mean()
    found = random_convolution(np.random.default_rng(5), image)
    assert torch.allclose(found, expected, atol=1e-5)


def test_draws_depend_on_the_generator_alone():
    first, again, other = (
        random_convolution(np.random.default_rng(seed), noisy()) for seed in (2, 2, 3)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.01)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_image_stays_flat(level):
    flat = torch.full((3, 8, 8), level)
    assert torch.allclose(random_convolution(np.random.default_rng(0), flat), flat, atol=1e-5)


def test_results_are_images():
    strong = (noisy() > 0.5).float()
    found = [random_convolution(np.random.default_rng(seed), strong) for seed in range(10)]
    assert min(float(f.min()) for f in found) >= 0
    assert max(float(f.max()) for f in found) <= 1
