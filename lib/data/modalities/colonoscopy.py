"""Colonoscopy frames: mucosa with folds, a dark lumen, highlights, and one or two polyps.

The target is the polyp. It is told from a fold by its dome-like shading and its own fine texture
more than by an edge or a colour; red or yellow patches and the lumen are there to mislead.
"""

import numpy as np
from numpy.random import Generator

from lib.data.modalities.painting import (
    Look,
    blur,
    contour,
    coordinates,
    darken,
    edge,
    exposure,
    fractal_noise,
    mix,
    path,
    plain,
    shading,
    shape,
    smooth_noise,
    step,
    tubes,
)

LOOKS = {
    "seen": Look(
        scale=(0.8, 1.3),
        contrast=(0.5, 1.0),
        noise=(0.01, 0.03),
        blur=(0.0, 0.008),
        gamma=(0.85, 1.2),
        colour=((1.0, 0.95, 0.9), (1.0, 1.0, 1.05)),
    ),
    "unseen": Look(
        scale=(0.5, 0.9),
        contrast=(0.35, 0.8),
        noise=(0.03, 0.06),
        blur=(0.006, 0.014),
        gamma=(1.1, 1.6),
        colour=((0.95, 1.1, 1.1), (0.9, 1.15, 1.3)),
    ),
}


def draw(rng: Generator, size: int, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """One frame (`3 x H x W` in [0, 1]) and the mask of its polyps (`H x W` bool)."""
    rows, columns = coordinates(size)
    contrast = rng.uniform(*look.contrast)
    lumen = rng.uniform(-0.8, 0.8, 2)
    height, distance = _colon(rng, size, lumen)
    image = _mucosa(rng, size)
    image = _patches(rng, image)

    mask = np.zeros((size, size), bool)
    for _ in range(1 + (rng.random() < 0.15)):
        depth, rise = _polyp(rng, size, lumen, look)
        mask |= depth > 0
        inside = step(depth, 0.04)
        height = height * (1 - 0.8 * inside) + contrast * rise
        image = _polyp_surface(rng, image, depth, inside, contrast)

    height = height + 0.004 * fractal_noise(rng, size, 12, 3)
    light = np.array([*rng.uniform(-0.8, 0.8, 2), 0.8])
    diffuse, towards = shading(height, light)
    # The lamp sits at the camera: what is farther away, along the lumen, is darker.
    near = np.clip(
        0.25 + 0.75 * step(distance - rng.uniform(0.1, 0.3), rng.uniform(0.5, 1.0)), 0, 1
    )
    image = image * (diffuse * near) * rng.uniform(1.05, 1.45)
    wet = smooth_noise(rng, size, 14) + 0.8 * smooth_noise(rng, size, 40)
    glint = step(towards - rng.uniform(0.985, 0.995), 0.008) * step(wet - 1.5, 0.4)
    image = mix(image, (1.0, 0.98, 0.95), glint)
    image = _bubbles(rng, image)
    image = exposure(rng, np.clip(image, 0, 1), look)
    visible = _field_of_view(rng, rows, columns)
    return image * visible, mask & (visible > 0.5)


def _colon(rng: Generator, size: int, lumen) -> tuple[np.ndarray, np.ndarray]:
    """Height of the wall with its circular folds, and the distance from the lumen's centre."""
    rows, columns = coordinates(size)
    warp = 0.18 * smooth_noise(rng, size, 3)
    y, x = rows - lumen[0], columns - lumen[1]
    distance = np.hypot(y, x * rng.uniform(0.7, 1.4)) + warp
    # Folds lie at equal distances along the tube, so they crowd towards the lumen as seen here.
    phase = np.log(np.maximum(distance, 0.05)) * rng.uniform(5, 9) + rng.uniform(0, 6.28)
    phase = phase + 0.8 * smooth_noise(rng, size, 4)
    ridge = np.exp(3 * (np.cos(phase) - 1)) * step(smooth_noise(rng, size, 3) + 0.5, 1.5)
    height = rng.uniform(0.03, 0.1) * ridge * np.clip(distance, 0.2, 1)
    height += 0.08 * smooth_noise(rng, size, 3)
    return height.astype(np.float32), distance


def _mucosa(rng: Generator, size: int) -> np.ndarray:
    """Colour of the wall: pink to orange, blotchy, with fine vessels."""
    pale, deep = np.array([0.88, 0.62, 0.50]), np.array([0.72, 0.36, 0.28])
    base = pale + (deep - pale) * rng.random() + rng.normal(0, 0.02, 3)
    image = plain(base, size)
    image = darken(image, (0.05, 0.11, 0.13), fractal_noise(rng, size, 4, 4))
    points = [
        path(rng, rng.uniform(-1, 1, 2), rng.uniform(0, 6.28), rng.uniform(0.3, 1.0), 0.5)
        for _ in range(rng.integers(4, 14))
    ]
    vessels = tubes(size, np.concatenate(points), np.full(sum(map(len, points)), 0.006))
    return mix(image, (0.6, 0.2, 0.18), rng.uniform(0.1, 0.4) * step(vessels, 0.012))


def _patches(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Flat red, pale or yellow areas that share a polyp's outline and colour, not its height."""
    size = image.shape[1]
    for _ in range(rng.integers(1, 4)):
        colour = [(0.75, 0.25, 0.2), (0.9, 0.7, 0.6), (0.8, 0.65, 0.25)][rng.integers(3)]
        radii = contour(rng, roughness=0.25)
        depth = shape(size, rng.uniform(-0.9, 0.9, 2), rng.uniform(0.08, 0.3), radii)
        image = mix(image, colour, rng.uniform(0.2, 0.55) * step(depth, rng.uniform(0.03, 0.12)))
    return image


def _polyp(rng: Generator, size: int, lumen, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """Depth field of a polyp away from the lumen, and the height of its dome."""
    radius = np.exp(rng.uniform(np.log(0.2), np.log(0.75))) * rng.uniform(*look.scale)
    centre = rng.uniform(-0.7, 0.7, 2)
    if np.hypot(*(centre - lumen)) < radius + 0.25:  # not inside the dark lumen
        away = rng.uniform(0, 2 * np.pi)
        centre = lumen + (radius + 0.3) * np.array([np.sin(away), np.cos(away)])
        centre = np.where(np.abs(centre) > 0.75, -centre, centre)
    depth = shape(
        size,
        centre,
        radius,
        contour(rng, roughness=0.09, waves=6),
        stretch=rng.uniform(1.0, 1.7),
        angle=rng.uniform(0, np.pi),
    )
    # A parabola, smoothed: the rise starts gently enough to be seen by its shading, not its edge.
    dome = (1 - (1 - np.clip(depth / radius, 0, 1)) ** 2) ** rng.uniform(1.0, 1.8)
    return depth, blur(dome, 0.1 * radius) * rng.uniform(0.35, 0.75) * radius


def _polyp_surface(rng: Generator, image, depth, inside, contrast: float) -> np.ndarray:
    """Texture and faint colour of a polyp, and the dark rim where it leaves the wall."""
    size = image.shape[1]
    colour = [(0.85, 0.45, 0.38), (0.68, 0.28, 0.24), (0.9, 0.72, 0.58)][rng.integers(3)]
    surface = mix(image, colour, 0.55 * contrast * rng.random())
    grain = smooth_noise(rng, size, int(rng.integers(24, 48)))
    surface = surface * (1 + 0.07 * contrast * grain)
    rim = np.exp(-((depth / 0.02) ** 2)) * rng.uniform(0.0, 0.15) * contrast
    image = image + (surface - image) * inside
    return image * (1 - rim)


def _bubbles(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Small bright rings of foam."""
    rings = np.zeros(image.shape[1:], np.float32)
    rows, columns = coordinates(image.shape[1])
    for _ in range(rng.integers(0, 5)):
        y, x = rng.uniform(-1, 1, 2)
        ring = np.hypot(rows - y, columns - x) - rng.uniform(0.02, 0.05)
        rings += np.exp(-((ring / 0.008) ** 2))
    return mix(image, (0.95, 0.9, 0.85), 0.5 * rings)


def _field_of_view(rng: Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """1 in the endoscope's picture, 0 in its black surround: cut corners, sometimes an inset."""
    cut = rng.uniform(1.5, 1.95)
    visible = step(cut - np.abs(rows) - np.abs(columns), edge(len(rows)))
    if rng.random() < 0.35:
        y, x = rng.uniform(0.35, 0.6), rng.uniform(-0.7, -0.4)
        visible = visible * ~((rows > y) & (columns < x))
    return visible.astype(np.float32)
