"""Fundus photographs: optic disc, macula, lesions, and the branching vessels of the retina.

The targets are the vessels. They are dark, but so are the macula, bleedings, the choroid's pattern
and the unevenly lit rim; many are a pixel or two wide and hardly darker than what they cross.
"""

import numpy as np
from numpy.random import Generator

from lib.data.modalities.painting import (
    Look,
    contour,
    coordinates,
    darken,
    edge,
    exposure,
    fractal_noise,
    mix,
    plain,
    shape,
    smooth_noise,
    step,
    tubes,
)

LOOKS = {
    "seen": Look(
        scale=(0.9, 1.15),
        contrast=(0.5, 1.0),
        noise=(0.01, 0.03),
        blur=(0.002, 0.007),
        gamma=(0.8, 1.2),
        colour=((1.0, 1.0, 1.0), (0.85, 0.95, 0.9)),
    ),
    "unseen": Look(
        scale=(1.2, 1.6),
        contrast=(0.5, 0.9),
        noise=(0.03, 0.05),
        blur=(0.004, 0.009),
        gamma=(1.1, 1.6),
        colour=((0.75, 1.1, 1.1), (0.85, 1.2, 1.5)),
    ),
}


STRIDE = 0.02  # of a growing vessel, in half sides


def draw(rng: Generator, size: int, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """One photograph (`3 x H x W` in [0, 1]) and the mask of its vessels (`H x W` bool)."""
    rows, columns = coordinates(size)
    contrast, zoom = rng.uniform(*look.contrast), rng.uniform(*look.scale)
    side = rng.choice((-1, 1))
    disc = np.array([rng.normal(0, 0.08), side * rng.uniform(0.45, 0.72)])
    macula = disc + np.array([rng.normal(0.05, 0.03), -side * rng.uniform(0.6, 0.7) * zoom])
    points, radii, vein = _vessel_tree(rng, size, disc, macula, zoom)
    radii = np.maximum(radii, 0.6 * edge(size))  # none slips between the pixels of a small image

    image = _retina(rng, size, macula)
    image = _choroid(rng, image)
    image = _lesions(rng, image)
    image = _disc(rng, image, disc, zoom)
    depth = np.full((size, size), -1.0, np.float32)
    for is_vein in (False, True):
        chosen = vein == is_vein
        field = tubes(size, points[chosen], radii[chosen], margin=0.006)
        image = _vessels(rng, image, field, contrast, is_vein)
        depth = np.maximum(depth, field)

    lit = 1 - rng.uniform(0.2, 0.6) * np.hypot(
        rows - rng.normal(0, 0.3), columns - rng.normal(0, 0.3)
    )
    image = image * np.clip(lit + 0.12 * smooth_noise(rng, size, 2), 0.1, 1.4)
    haze = rng.uniform(0, 0.25) * step(smooth_noise(rng, size, 2), 2)
    image = exposure(rng, mix(image, (0.75, 0.6, 0.45), haze), look)
    visible = step(rng.uniform(0.92, 1.02) - np.hypot(rows, columns), 2 * edge(size))
    return image * visible, (depth > 0) & (visible > 0.5)


def _vessel_tree(rng: Generator, size: int, disc, macula, zoom: float):
    """Points (N x 2), radii (N) and kind (N bool, vein) of all vessels, grown from the disc.

    Every tip is a walker, and all walkers step at once. An artery and a vein leave the disc to each
    quarter; those on the macula's side bend into the arcs above and below it. A branch takes part
    of its parent's width; vessels thin on their way and end when they are too thin to be seen.
    """
    ahead = np.arctan2(*(macula - disc))
    # Direction on leaving the disc, against that of the macula, and how much it turns in a step.
    leave = np.deg2rad([75, 95, -75, -95, 130, 150, -130, -150]) + rng.normal(0, 0.15, 8)
    bend = np.array([-1, -1, 1, 1, 0.3, 0.3, -0.3, -0.3]) * rng.uniform(0.015, 0.032, 8) / zoom
    heading, vein = ahead + leave, np.arange(8) % 2 == 0
    position = disc + 0.03 * np.stack([np.sin(heading), np.cos(heading)], axis=1)
    width = rng.uniform(0.01, 0.017, 8) * np.where(vein, 1.2, 0.9) * zoom**0.5
    thinning = np.full(8, 0.99)
    drift, kept = np.zeros(8), []
    for _ in range(int(90 * zoom)):
        drift = 0.7 * drift + rng.normal(0, 0.055, len(width))
        heading = heading + drift + bend
        stride = STRIDE * np.stack([np.sin(heading), np.cos(heading)], axis=1)
        kept.append((position, stride, width, vein))
        position, width = position + stride, width * thinning
        split = rng.random(len(width)) < 0.078
        turn = np.sign(rng.uniform(-1, 1, len(width))) * rng.uniform(0.4, 1.0, len(width))
        share = rng.uniform(0.5, 0.85, len(width))
        position, vein = (np.concatenate([a, a[split]]) for a in (position, vein))
        bend = np.concatenate([bend, rng.normal(0, 0.011, split.sum()) - 0.017 * turn[split]])
        drift = np.concatenate([drift, np.zeros(split.sum())])
        heading = np.concatenate([heading - 0.2 * turn * split, (heading + turn)[split]])
        width = np.concatenate([width * np.where(split, 0.95, 1), (width * share)[split]])
        thinning = np.concatenate([thinning, np.full(split.sum(), 0.98)])
        alive = (width > 0.004) & (np.hypot(*position.T) < 1.1)
        alive &= np.hypot(*(macula - position).T) > 0.13 * zoom  # the fovea has no vessels
        position, heading, width, vein, drift, bend, thinning = (
            a[alive] for a in (position, heading, width, vein, drift, bend, thinning)
        )
    position, stride, width, vein = (np.concatenate(part) for part in zip(*kept, strict=True))
    # Discs less than a pixel apart, so that the thinnest vessel is without gaps.
    parts = np.linspace(0, 1, int(np.ceil(STRIDE * size / 2 / 0.9)), endpoint=False)
    points = position + parts[:, None, None] * stride
    repeats = len(parts)
    return points.reshape(-1, 2), np.tile(width, repeats), np.tile(vein, repeats)


def _retina(rng: Generator, size: int, macula) -> np.ndarray:
    """Orange to brown ground with a dark macula."""
    rows, columns = coordinates(size)
    light, dark = np.array([0.85, 0.45, 0.22]), np.array([0.55, 0.22, 0.1])
    base = light + (dark - light) * rng.random() + rng.normal(0, 0.03, 3)
    image = plain(base, size)
    image = image * (1 + 0.07 * fractal_noise(rng, size, 3, 5))
    distance = np.hypot(rows - macula[0], columns - macula[1])
    spot = np.exp(-((distance / rng.uniform(0.12, 0.22)) ** 2))
    return mix(image, base * 0.45, rng.uniform(0.3, 0.7) * spot)


def _choroid(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Broad faint bands that shine through from below: like vessels, but not of the retina."""
    size = image.shape[1]
    bands = np.abs(smooth_noise(rng, size, 7) + 0.4 * smooth_noise(rng, size, 14))
    where = step(smooth_noise(rng, size, 2) - 0.2, 1.5)
    return image * (1 - rng.uniform(0.05, 0.3) * where * np.exp(-((bands / 0.25) ** 2)))


def _lesions(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Bleedings, dark red, and groups of yellow exudates."""
    size = image.shape[1]
    bleedings = [
        shape(
            size,
            rng.uniform(-0.75, 0.75, 2),
            rng.uniform(0.012, 0.06),
            contour(rng, roughness=0.25),
            stretch=rng.uniform(1, 4),
            angle=rng.uniform(0, np.pi),
        )
        for _ in range(rng.integers(0, 5))
    ]
    if bleedings:
        depth = np.max(bleedings, axis=0)
        image = mix(image, (0.3, 0.06, 0.04), rng.uniform(0.4, 0.8) * step(depth, 0.02))
    groups = rng.uniform(-0.75, 0.75, (rng.integers(0, 5), 2))
    if len(groups):
        dots = groups[rng.integers(len(groups), size=10 * len(groups))]
        dots = dots + rng.normal(0, 0.07, dots.shape)
        depth = tubes(size, dots, rng.uniform(0.006, 0.022, len(dots)))
        image = mix(image, (0.95, 0.8, 0.4), rng.uniform(0.3, 0.8) * step(depth, 0.015))
    return image


def _disc(rng: Generator, image: np.ndarray, disc, zoom: float) -> np.ndarray:
    """The bright disc and its brighter cup."""
    size = image.shape[1]
    radius = rng.uniform(0.1, 0.15) * zoom
    depth = shape(size, disc, radius, contour(rng, roughness=0.04), stretch=rng.uniform(0.8, 1.2))
    image = mix(image, (0.95, 0.7, 0.4), rng.uniform(0.6, 0.9) * step(depth, 0.04))
    cup = step(depth - radius * rng.uniform(0.4, 0.7), 0.06)
    return mix(image, (1.0, 0.9, 0.65), rng.uniform(0.3, 0.8) * cup)


def _vessels(rng: Generator, image, field, contrast: float, vein: bool) -> np.ndarray:
    """Blood absorbs green most; arteries are paler and wide ones reflect along their middle."""
    size = image.shape[1]
    strength = contrast * (1.0 if vein else 0.75) * (1 + 0.25 * smooth_noise(rng, size, 4))
    cover = np.clip(strength, 0.15, 1.3) * step(field, max(0.008, 1.5 * edge(size)))
    image = darken(image, (0.35, 0.55, 0.45), cover)
    reflex = (0.05 if vein else 0.2) * step(field - 0.008, 0.006)
    return mix(image, (0.9, 0.55, 0.35), reflex)
