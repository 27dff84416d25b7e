"""Smooth random fields on a square grid, made cheap by matrix products.

Every field is `H x W` float32. A coarse grid of Gaussian numbers is interpolated by two small
matrix products (rows, then columns), which costs far less than filtering at full size.
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


def fractal(rng, size, knots=4, octaves=4, persistence=0.6):
    """Sum of `noise` at doubling frequencies with amplitudes falling by `persistence`."""
    total, amplitude, power = np.zeros((size, size), np.float32), 1.0, 0.0
    for octave in range(octaves):
        total += amplitude * noise(rng, size, min(knots * 2**octave, size // 2))
        power += amplitude**2
        amplitude *= persistence
    return total / np.float32(np.sqrt(power))


@lru_cache(maxsize=128)
def _gaussian(size, tenths):
    """`size x size` Gaussian smoothing matrix for a deviation of `tenths` / 10 pixels."""
    offset = np.arange(size)[:, None] - np.arange(size)[None]
    weights = np.exp(-0.5 * (offset / (tenths / 10)) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def blur(field, sigma):
    """Gaussian blur of an `H x W` or `H x W x C` array by `sigma` pixels."""
    tenths = max(1, round(sigma * 10))
    if field.ndim == 2:
        matrix = _gaussian(field.shape[0], tenths)
        return matrix @ field @ matrix.T
    return np.stack([blur(field[..., c], sigma) for c in range(field.shape[2])], -1)


@lru_cache(maxsize=4)
def _blocks(size):
    """Block-diagonal 8 x 8 cosine transform: `size x size`, orthonormal."""
    k = np.arange(8)
    cosine = np.cos(np.pi * (k[None] + 0.5) * k[:, None] / 8) * np.sqrt(2 / 8)
    cosine[0] /= np.sqrt(2)
    return np.kron(np.eye(size // 8), cosine).astype(np.float32)


def block_artefacts(field, step):
    """Quantise 8 x 8 cosine coefficients, coarser at higher frequency, as JPEG does.

    `field`: `H x W` in [0, 1], sides a multiple of 8; `step`: quantisation step (0.01-0.1).
    """
    matrix = _blocks(field.shape[0])
    frequency = np.add.outer(np.arange(8), np.arange(8))
    table = np.tile((step * (1 + frequency)).astype(np.float32), (field.shape[0] // 8,) * 2)
    return matrix.T @ (np.round(matrix @ field @ matrix.T / table) * table) @ matrix


def sigmoid(x):
    """Logistic function, safe for large arguments."""
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def relief(height, rng, strength):
    """Light falling on a surface: the slope of `height` along a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.gradient(height)
    return (strength * math.sin(angle)) * rows + (strength * math.cos(angle)) * columns


def random_colour(rng, low, high):
    """Red, green and blue between `low` and `high` (three numbers each): float32 of length 3."""
    return rng.uniform(low, high).astype(np.float32)


def grey(field):
    """An `H x W` field as `H x W x 3`."""
    return np.repeat(field[..., None], 3, axis=2)
