"""Smooth random fields on a square grid, and the few operations that everything is drawn with.

Every field is `H x W` float32; images are `C x H x W`, so that a field applies to each channel
without a copy. A coarse grid of Gaussian numbers is interpolated by two small matrix products
(rows, then columns), which costs far less than filtering at full size.
"""

import math
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=8)
def grid(size):
    """Row and column coordinates of pixel centres: two `size x size` arrays in (-1, 1)."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1
    return np.meshgrid(axis, axis, indexing="ij")


@lru_cache(maxsize=256)
def _interpolation(size, knots):
    """`size x knots` Gaussian interpolation weights, scaled to keep unit variance."""
    pixels = (np.arange(size) + 0.5) / size * (knots - 1)
    weights = np.exp(-0.5 * ((pixels[:, None] - np.arange(knots)[None]) / 0.55) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def noise(rng, size, knots=8, knots_x=None):
    """Gaussian noise of mean 0, variance 1, with about `knots` independent values a side.

    `knots_x` other than `knots` stretches it along an axis (fibres, tissue layers).
    """
    knots_x = knots_x or knots
    coarse = rng.standard_normal((knots, knots_x), dtype=np.float32)
    return _interpolation(size, knots) @ coarse @ _interpolation(size, knots_x).T


def mosaic(rng, size, knots, levels, sharpness=40.0):
    """Regions of constant value with sharp, winding borders: `H x W` in about [-1, 1].

    The level sets of smooth noise are shaped like tissues and organs in a slice.
    """
    terrain = noise(rng, size, knots) + 0.3 * noise(rng, size, 3 * knots)
    total = np.zeros((size, size), np.float32)
    for cut in rng.uniform(-1.5, 1.5, levels).tolist():
        total += (rng.uniform(0.3, 1) * sign(rng)) * step((terrain - cut) * sharpness)
    return total / math.sqrt(levels)


def step(x):
    """A step from 0 to 1 at 0, softened over about 4 units: the logistic function."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def binomial(field):
    """The last two axes smoothed by [1, 2, 1] / 4; pixels at the border count themselves twice."""
    for axis in (-2, -1):
        across = np.moveaxis(field, axis, -1) if axis == -2 else field
        smooth = 0.5 * across
        smooth[..., 1:] += 0.25 * across[..., :-1]
        smooth[..., :-1] += 0.25 * across[..., 1:]
        smooth[..., 0] += 0.25 * across[..., 0]
        smooth[..., -1] += 0.25 * across[..., -1]
        field = np.moveaxis(smooth, -1, axis) if axis == -2 else smooth
    return field


def halve(field):
    """Means of 2 x 2 pixels of the last two axes, whose lengths must be even."""
    rows = field[..., ::2, :] + field[..., 1::2, :]
    return 0.25 * (rows[..., ::2] + rows[..., 1::2])


def double(field):
    """Bilinear interpolation of the last two axes to twice their length."""
    for axis in (-2, -1):
        across = np.moveaxis(field, axis, -1) if axis == -2 else field
        wide = np.empty((*across.shape[:-1], 2 * across.shape[-1]), np.float32)
        near = 0.75 * across
        wide[..., 2::2] = near[..., 1:] + 0.25 * across[..., :-1]
        wide[..., 1:-1:2] = near[..., :-1] + 0.25 * across[..., 1:]
        wide[..., 0], wide[..., -1] = across[..., 0], across[..., -1]
        field = np.moveaxis(wide, -1, axis) if axis == -2 else wide
    return field


def blur(field, sigma):
    """About a Gaussian blur of the last two axes by `sigma` pixels.

    Wide blurs are made at half the size, where [1, 2, 1] filters reach twice as far. Halving and
    doubling blur too, by a variance of 1 px^2, which is taken off first.
    """
    if sigma >= 1.7 and min(field.shape[-2:]) >= 16 and not any(n % 2 for n in field.shape[-2:]):
        return double(blur(halve(field), math.sqrt(sigma**2 - 1) / 2))
    for _ in range(round(2 * sigma**2)):
        field = binomial(field)
    return field


def slope(height, direction):
    """Slope of `height` (per pixel) along `direction` (row, column): how light falls on it."""
    result = np.zeros_like(height)
    result[1:-1] += (0.5 * float(direction[0])) * (height[2:] - height[:-2])
    result[:, 1:-1] += (0.5 * float(direction[1])) * (height[:, 2:] - height[:, :-2])
    return result


def direction(rng):
    """A random unit vector (row, column)."""
    angle = rng.uniform(0, 2 * math.pi)
    return np.array([math.sin(angle), math.cos(angle)])


def sign(rng):
    """-1.0 or 1.0."""
    return 1.0 if rng.random() < 0.5 else -1.0


def colour(rng, low, high):
    """A value for each channel between `low` and `high`: `C x 1 x 1` float32."""
    return rng.uniform(low, high).astype(np.float32)[:, None, None]
