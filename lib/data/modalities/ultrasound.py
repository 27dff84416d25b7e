"""Ultrasound of layered tissue: speckle, attenuation, shadows, and at most one lesion.

The target is the lesion; about one picture in six has none. A lesion is told from a lobule of fat,
which is as dark, by its rounder outline, its echoes' texture and the shadow or brightening below.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from lib.data.modalities.painting import (
    Look,
    contour,
    coordinates,
    edge,
    exposure,
    fractal_noise,
    grey,
    shape,
    smooth_noise,
    step,
)


@dataclass(frozen=True)
class ProbeLook(Look):
    """A look, and whether the probe is curved and so sees a fan instead of a rectangle."""

    curved: bool


LOOKS = {
    "seen": ProbeLook(
        scale=(0.8, 1.2),
        contrast=(0.7, 1.2),
        noise=(0.005, 0.02),
        blur=(0.0, 0.006),
        gamma=(0.8, 1.2),
        colour=((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        curved=False,
    ),
    "unseen": ProbeLook(
        scale=(0.5, 0.85),
        contrast=(0.5, 0.8),
        noise=(0.03, 0.06),
        blur=(0.006, 0.012),
        gamma=(1.2, 1.6),
        colour=((0.9, 0.95, 1.0), (1.0, 0.95, 0.8)),
        curved=True,
    ),
}


def draw(rng: Generator, size: int, look: ProbeLook) -> tuple[np.ndarray, np.ndarray]:
    """One scan (`3 x H x W` in [0, 1]) and the mask of its lesion (`H x W` bool, maybe empty)."""
    rows, columns = coordinates(size)
    down = (rows + 1) / 2
    echo = _tissue(rng, size)  # echo strength in nepers: its logarithm
    echo = echo + _lobules(rng, size)
    mask = np.zeros((size, size), bool)
    if rng.random() < 0.85:
        depth, centre, radius = _lesion(rng, size, look)
        mask = depth > 0
        echo = _with_lesion(rng, echo, depth, centre, radius, rng.uniform(*look.contrast))
    echo = echo + _shadows_without_lesion(rng, columns, down)
    # Attenuation with depth, and what the operator's gain gives back of it.
    echo = echo - rng.uniform(0.8, 2.2) * down + rng.uniform(0.2, 0.9) * np.clip(down * 1.5, 0, 1)
    envelope = np.exp(echo) * _speckle(rng, size)
    # Log compression to the screen: about four nepers from black to white.
    screen = np.log(envelope + 0.02) / rng.uniform(3.8, 5.0) + rng.uniform(0.42, 0.58)
    screen = np.clip(screen, 0, 1).astype(np.float32)
    if look.curved:
        sector = _sector(rng, rows, columns)
        screen, mask = screen * sector, mask & (sector > 0.5)
    return exposure(rng, grey(screen), look), mask


def _tissue(rng: Generator, size: int) -> np.ndarray:
    """Skin, fat, gland and muscle as wavy horizontal layers with bright septa."""
    rows, _ = coordinates(size)
    level = (
        (rows + 1) / 2 + 0.04 * smooth_noise(rng, size, 3) + 0.015 * smooth_noise(rng, size, 4, 8)
    )
    borders = np.cumsum(rng.uniform((0.03, 0.12, 0.2), (0.08, 0.25, 0.4)))
    brightness = rng.normal((0.5, -0.5, 0.25, -0.3), 0.2)
    echo = np.full((size, size), brightness[0], np.float32)
    for border, before, after in zip(borders, brightness, brightness[1:], strict=False):
        echo += (after - before) * step(level - border, 0.04)
        echo += rng.uniform(0.2, 0.8) * np.exp(-(((level - border) / 0.008) ** 2))
    fibres = smooth_noise(rng, size, 48, 5) + 0.7 * smooth_noise(rng, size, 80, 9)
    echo += 0.28 * fibres * (0.4 + step(level - borders[1], 0.2))
    return echo + 0.3 * fractal_noise(rng, size, 5, 4)


def _lobules(rng: Generator, size: int) -> np.ndarray:
    """Flat dark lobules of fat: no clear border, no shadow, not a target."""
    echo = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(1, 5)):
        depth = shape(
            size,
            rng.uniform((-0.7, -0.9), (0.7, 0.9)),
            rng.uniform(0.1, 0.24),
            contour(rng, roughness=0.15),
            stretch=rng.uniform(2.0, 4.0),
            angle=rng.normal(0, 0.25),
        )
        echo -= rng.uniform(0.4, 1.1) * step(depth, rng.uniform(0.06, 0.18))
    return echo


def _lesion(rng: Generator, size: int, look: Look) -> tuple[np.ndarray, np.ndarray, float]:
    """Depth field, centre and radius: a smooth ellipse, a lobed mass or a spiky one."""
    roughness, waves, fall = [(0.03, 4, 1.2), (0.15, 7, 1.0), (0.08, 20, 0.55)][rng.integers(3)]
    radius = np.exp(rng.uniform(np.log(0.16), np.log(0.45))) * rng.uniform(*look.scale)
    centre = rng.uniform((-0.5, -0.65), (0.4, 0.65))
    depth = shape(
        size,
        centre,
        radius,
        contour(rng, roughness=roughness, waves=waves, fall=fall),
        stretch=rng.uniform(0.9, 1.8),
        angle=rng.normal(0, 0.3),
    )
    return depth, centre, radius


def _with_lesion(rng: Generator, echo, depth, centre, radius: float, contrast: float) -> np.ndarray:
    """Put the lesion's echoes, its halo, and its shadow or enhancement into the tissue."""
    size = len(echo)
    rows, columns = coordinates(size)
    inside = step(depth, rng.uniform(0.02, 0.08))
    dark = -contrast * rng.uniform(0.8, 2.0)
    if rng.random() < 0.12:
        dark = contrast * rng.uniform(0.6, 0.9)  # a few are brighter than the tissue
    texture = rng.uniform(0.05, 0.35) * fractal_noise(rng, size, 10, 3)
    local = (echo * inside).sum() / inside.sum()
    echo = echo + inside * (0.75 * (local - echo) + dark + texture)
    halo = np.exp(-(((depth + 0.02) / 0.02) ** 2))
    echo = echo + rng.uniform(0.0, 0.6) * halo
    below = step(rows - centre[0] - 0.5 * radius, 0.5 * radius) * (1 - inside)
    width = radius * rng.uniform(0.7, 1.0)
    beam = np.exp(-(((columns - centre[1]) / width) ** 4)) * below
    return (echo + beam * rng.choice((-1.1, -0.5, 0.5)) * rng.uniform(0.5, 1.0)).astype(np.float32)


def _shadows_without_lesion(rng: Generator, columns, down) -> np.ndarray:
    """Shadows from the surface, where the probe touches badly or gas lies above."""
    shadow = np.zeros_like(down)
    for _ in range(rng.integers(0, 3)):
        lateral = (columns - rng.uniform(-1, 1)) / rng.uniform(0.06, 0.2)
        shadow -= (
            rng.uniform(0.3, 1.2) * np.exp(-(lateral**2)) * step(down - rng.uniform(0, 0.4), 0.2)
        )
    return shadow


def _speckle(rng: Generator, size: int) -> np.ndarray:
    """Magnitude of the sum of many small echoes, mean 1: multiplicative noise.

    The sum is a complex Gaussian, so its magnitude is Rayleigh distributed; it is correlated by a
    pulse that is short along the beam (rows) and wider across it (columns). Two independent looks
    are averaged, as scanners do from two directions (compounding).
    """
    pulse = np.array([rng.uniform(0.005, 0.008), rng.uniform(0.008, 0.016)]) * size / 2
    echoes = rng.spawn(1)[0].standard_normal((4, size, size), dtype=np.float32)
    echoes = gaussian_filter(echoes, pulse, axes=(1, 2), truncate=3)
    magnitude = np.sqrt((echoes**2).sum(axis=0))
    return magnitude / magnitude.mean()


def _sector(rng: Generator, rows, columns) -> np.ndarray:
    """1 in the fan that a curved probe sees, 0 outside."""
    apex = rng.uniform(-2.4, -1.9)
    reach = np.hypot(rows - apex, columns)
    angle = np.abs(np.arctan2(columns, rows - apex))
    soft = edge(len(rows))
    near, far = -0.95 - apex, rng.uniform(0.85, 1.0) - apex
    return (
        step(reach - near, soft)
        * step(far - reach, soft)
        * step(rng.uniform(0.4, 0.5) - angle, soft)
    )
