"""Fluorescence microscopy: stained nuclei, touching and of very different brightness.

The targets are the nuclei in focus. Uneven light, haze from nuclei out of focus, bright debris and
cytoplasm that glows as brightly as a faint nucleus keep one threshold from finding them.
"""

import numpy as np
from numpy.random import Generator

from lib.data.modalities.painting import (
    DIRECTIONS,
    Look,
    blur,
    contour,
    coordinates,
    exposure,
    fractal_noise,
    grey,
    pixel_noise,
    smooth_noise,
    step,
)

LOOKS = {
    "seen": Look(
        scale=(0.8, 1.3),
        contrast=(0.7, 1.2),
        noise=(0.01, 0.03),
        blur=(0.0, 0.008),
        gamma=(0.7, 1.1),
        colour=((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    ),
    "unseen": Look(
        scale=(0.5, 0.75),
        contrast=(0.45, 0.8),
        noise=(0.04, 0.08),
        blur=(0.006, 0.014),
        gamma=(0.6, 0.8),
        colour=((0.25, 0.4, 1.0), (0.3, 1.0, 0.5)),
    ),
}


def draw(rng: Generator, size: int, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """One field of view (`3 x H x W` in [0, 1]) and the mask of its nuclei (`H x W` bool)."""
    rows, columns = coordinates(size)
    zoom, contrast = rng.uniform(*look.scale), rng.uniform(*look.contrast)
    radius = rng.uniform(0.06, 0.11) * zoom
    centres, bright = _cells(rng, radius)
    depth, light = _nuclei(rng, size, centres, radius, bright)

    grain = (
        1 + 0.16 * smooth_noise(rng, size, int(6 / radius)) + 0.12 * fractal_noise(rng, size, 10, 3)
    )
    dome = np.clip(depth / radius, 0, 1) ** 0.3
    signal = (
        contrast * light * step(depth, rng.uniform(0.008, 0.025)) * (0.65 + 0.35 * dome) * grain
    )
    signal = signal + _cytoplasm(rng, size, depth, radius)
    signal = signal + _out_of_focus(rng, size, radius)
    signal = signal + _debris(rng, size)
    # Uneven light acts on all that glows; the camera's offset does not.
    tilt = rng.normal(0, 0.5, 2)
    lamp = np.exp(tilt[0] * rows + tilt[1] * columns + 0.4 * smooth_noise(rng, size, 2))
    signal = np.clip(signal * lamp, 0, None) + rng.uniform(0.01, 0.06)
    photons = rng.uniform(60, 400)
    signal = signal + np.sqrt(signal / photons) * pixel_noise(rng, size)[0]
    signal = 1 - np.exp(-1.3 * np.clip(signal, 0, None))  # a display curve that seldom saturates
    return exposure(rng, grey(signal), look), depth > 0


def _cells(rng: Generator, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N x 2), partly in clusters, and brightness (N) of the nuclei."""
    count = int(np.clip(rng.uniform(0.08, 0.5) / radius**2 / 2, 8, 140))
    clusters = rng.uniform(-0.9, 0.9, (max(1, count // 7), 2))
    near = clusters[rng.integers(len(clusters), size=count)] + rng.normal(0, 2 * radius, (count, 2))
    alone = rng.uniform(-1, 1, (count, 2))
    centres = np.where(rng.random((count, 1)) < rng.uniform(0.2, 0.8), near, alone)
    kept = []
    for index, centre in enumerate(centres):  # nuclei may touch, not lie on top of each other
        others = centres[kept]
        if not kept or np.hypot(*(others - centre).T).min() > 1.5 * radius:
            kept.append(index)
    return centres[kept], np.exp(rng.normal(-1.0, 0.65, len(kept)).clip(-2.1, 0.2))


def _nuclei(rng: Generator, size: int, centres, radius: float, bright):
    """Depth field of all nuclei, and at every pixel the brightness of the nucleus next to it."""
    rows, columns = coordinates(size)
    depth = np.full((size, size), -1.0, np.float32)
    light = np.zeros((size, size), np.float32)
    for centre, brightness in zip(centres, bright, strict=True):
        own = radius * np.exp(rng.normal(0, 0.18))
        low, high = ((np.clip(centre + s * 2 * own, -1, 1) + 1) / 2 * size for s in (-1, 1))
        window = tuple(slice(int(a), int(np.ceil(b))) for a, b in zip(low, high, strict=True))
        stretch, angle = rng.uniform(1.0, 1.9) ** 0.5, rng.uniform(0, np.pi)
        radii = contour(rng, roughness=0.06, waves=5)
        y, x = rows[window] - centre[0], columns[window] - centre[1]
        u = (np.cos(angle) * x + np.sin(angle) * y) / stretch
        v = (np.cos(angle) * y - np.sin(angle) * x) * stretch
        turn = (np.arctan2(v, u) * (DIRECTIONS / (2 * np.pi))).astype(int) % DIRECTIONS
        field = radii[turn] * own - np.hypot(u, v)
        nearer = field > depth[window]
        depth[window] = np.where(nearer, field, depth[window])
        light[window] = np.where(nearer, brightness, light[window])
    return depth, light


def _cytoplasm(rng: Generator, size: int, depth, radius: float) -> np.ndarray:
    """A patchy glow around nuclei."""
    around = blur((depth > 0).astype(np.float32), rng.uniform(0.6, 1.2) * radius)
    return rng.uniform(0.05, 0.4) * around * np.exp(0.5 * fractal_noise(rng, size, 6, 4))


def _out_of_focus(rng: Generator, size: int, radius: float) -> np.ndarray:
    """Nuclei above or below the plane: large soft blobs that are no targets."""
    count = int(rng.integers(4, 18))
    places, bright = rng.uniform(-1, 1, (count, 2)), rng.uniform(0.2, 0.9, count)
    depth, light = _nuclei(rng, size, places, 1.2 * radius, bright)
    return blur(light * (depth > 0), rng.uniform(0.5, 0.9) * radius)


def _debris(rng: Generator, size: int) -> np.ndarray:
    """Bright specks much smaller than a nucleus."""
    count = int(rng.integers(3, 25))
    depth, light = _nuclei(
        rng, size, rng.uniform(-1, 1, (count, 2)), 0.018, rng.uniform(0.3, 1, count)
    )
    return light * step(depth, 0.015)
