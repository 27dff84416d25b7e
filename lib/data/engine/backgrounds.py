"""Empty scenes by style: where the light comes from, what lies around, which colours occur.

Styles borrow the look of a modality, not its anatomy. Images are `H x W x 3` float32 in about
[0, 1].
"""

import math

import numpy as np

from .fields import blur, fractal, grey, grid, noise, random_colour, relief, sigmoid
from .shapes import random_star, tree, tubes, walk

STYLES = {
    "endoscopy": 0.2,
    "ultrasound": 0.16,
    "dermoscopy": 0.12,
    "xray": 0.13,
    "mri": 0.13,
    "microscopy": 0.1,
    "fundus": 0.04,
    "texture": 0.12,
}


def background(rng, size, style):
    """An empty scene, and the colour change that objects of this style typically bring."""
    return {
        "endoscopy": _endoscopy,
        "ultrasound": _ultrasound,
        "dermoscopy": _dermoscopy,
        "xray": _xray,
        "mri": _mri,
        "microscopy": _microscopy,
        "fundus": _fundus,
        "texture": _texture,
    }[style](rng, size)


def _endoscopy(rng, size):
    rows, columns = grid(size)
    base = random_colour(rng, (0.5, 0.22, 0.12), (0.9, 0.55, 0.45))
    folds = fractal(rng, size, int(rng.integers(2, 5)), 3, 0.45)
    folds = -np.abs(folds) if rng.random() < 0.5 else folds
    light = rng.uniform(-0.6, 0.6, 2)
    away = np.hypot(rows - light[0], columns - light[1])
    shade = 1.1 - rng.uniform(0.05, 0.5) * away**2 + rng.uniform(0, 0.12) * folds
    shade = shade + np.clip(relief(folds, rng, rng.uniform(0, 4)), -0.35, 0.35)
    if rng.random() < 0.5:
        hole = random_star(rng, size, radius=rng.uniform(0.1, 0.5))
        shade = shade * (1 - rng.uniform(0.4, 0.95) * sigmoid(hole / rng.uniform(4, 25)))
    for _ in range(int(rng.integers(0, 4))):  # bulges and folds that are no object
        fold = np.clip(random_star(rng, size, radius=rng.uniform(0.3, 0.9)), 0, None)
        fold = np.sqrt(fold / max(float(fold.max()), 1.0))
        slope = relief(blur(fold, rng.uniform(1, 8)), rng, size * rng.uniform(0.02, 0.12))
        shade = shade + np.clip(slope, -0.3, 0.3)
    shade = shade + rng.uniform(0, 0.05) * fractal(rng, size, 24, 3)
    image = np.clip(shade, 0, 1.6)[..., None] * base
    if rng.random() < 0.5:
        vessels = sigmoid(tree(rng, size, rng.uniform(0.008, 0.02)))
        image = image - rng.uniform(0.03, 0.2) * vessels[..., None] * np.float32([0.3, 0.9, 0.8])
    return image, random_colour(rng, (-0.1, -0.5, -0.5), (0.6, 0.5, 0.5))


def _ultrasound(rng, size):
    rows, _ = grid(size)
    layers = noise(rng, size, int(rng.integers(6, 40)), int(rng.integers(2, 8)))
    level = rng.uniform(0.22, 0.5)
    tissue = level * (1 + rng.uniform(0.1, 0.35) * layers)
    tissue = tissue + level * rng.uniform(0.05, 0.3) * fractal(rng, size, 6, 3)
    tissue = tissue + rng.uniform(-0.2, 0.2) * rows
    strands = int(rng.integers(0, 9))
    if strands:  # bright fascia, mostly level
        paths = [
            walk(rng, 40, rng.uniform((-0.9, -1.2), (0.9, 0.6)), rng.normal(0, 0.15), 0.04, 0.04)
            for _ in range(strands)
        ]
        widths = np.repeat(rng.uniform(0.008, 0.035, strands), 40)
        line = sigmoid(tubes(size, np.concatenate(paths), widths))
        tissue = tissue + rng.uniform(0.1, 0.4) * line * sigmoid(2 * noise(rng, size, 5))
    return grey(tissue.astype(np.float32)), np.full(
        3, rng.choice([-0.6, -0.35, 0.3], p=[0.5, 0.3, 0.2]), np.float32
    )


def _dermoscopy(rng, size):
    skin = random_colour(rng, (0.6, 0.42, 0.35), (0.95, 0.8, 0.78))
    mottled = 1 + rng.uniform(0.01, 0.06) * fractal(rng, size, 3, 4, 0.7)
    mottled = mottled + rng.uniform(0, 0.03) * noise(rng, size, size // 4)
    image = mottled[..., None] * skin
    blush = noise(rng, size, 4)[..., None] * np.float32([0.2, -0.5, -0.4])
    return image + rng.uniform(0, 0.06) * blush, -random_colour(
        rng, (0.1, 0.4, 0.4), (0.8, 1.0, 1.0)
    )


def _xray(rng, size):
    rows, columns = grid(size)
    body = rng.uniform(0.45, 0.7) + 0.05 * fractal(rng, size, 3, 5, 0.6)
    middle = columns - rng.uniform(-0.15, 0.15)
    body = body + rng.uniform(0, 0.25) * np.exp(-0.5 * (middle / rng.uniform(0.1, 0.3)) ** 2)
    body = body + rng.uniform(-0.1, 0.15) * rows
    if rng.random() < 0.6:
        outside = random_star(rng, size, (0.1, 0), rng.uniform(0.9, 1.4), 1.2)
        body = body * sigmoid(outside / rng.uniform(2, 12))
    return grey(body.astype(np.float32)), np.full(
        3, rng.choice([-0.7, -0.4, 0.35], p=[0.4, 0.3, 0.3]), np.float32
    )


def _mri(rng, size):
    image = np.full((size, size), rng.uniform(0, 0.08), np.float32)
    body = random_star(rng, size, rng.uniform(-0.2, 0.2, 2), rng.uniform(0.7, 1.4), 1.4)
    image = image + sigmoid(body / 1.5) * rng.uniform(0.15, 0.5)
    for _ in range(int(rng.integers(2, 7))):
        organ = random_star(rng, size, rng.uniform(-0.8, 0.8, 2), rng.uniform(0.1, 0.6))
        inside = sigmoid(np.minimum(organ, body) / rng.uniform(0.5, 3))
        image = image * (1 - inside) + inside * rng.uniform(0.0, 0.75)
    image = image + rng.uniform(0, 0.06) * fractal(rng, size, 12, 3)
    return grey(image), np.full(3, rng.choice([-1, 1]) * rng.uniform(0.3, 1), np.float32)


def _microscopy(rng, size):
    uneven = rng.uniform(0, 0.08) * fractal(rng, size, 2, 4)
    if rng.random() < 0.5:
        tint = (
            np.ones(3, np.float32) if rng.random() < 0.6 else random_colour(rng, (0,) * 3, (1,) * 3)
        )
        image = (rng.uniform(0.02, 0.25) + uneven)[..., None] * tint
        return image, tint * rng.uniform(0.4, 1)
    stain = random_colour(rng, (0.65, 0.45, 0.6), (0.97, 0.9, 0.95))
    tissue = 1 + uneven + rng.uniform(0, 0.2) * fractal(rng, size, 10, 4, 0.8)
    return tissue[..., None] * stain, -random_colour(rng, (0.5, 0.5, 0.1), (0.9, 1.0, 0.6))


def _fundus(rng, size):
    base = random_colour(rng, (0.5, 0.2, 0.05), (0.95, 0.5, 0.3))
    shade = 1 + 0.1 * fractal(rng, size, 3, 3) + 0.03 * noise(rng, size, 64)
    image = shade[..., None] * base
    vessels = sigmoid(tree(rng, size, rng.uniform(0.012, 0.03)))
    image = image - rng.uniform(0.1, 0.35) * vessels[..., None] * np.float32([0.6, 0.8, 0.4])
    return image, random_colour(rng, (-0.5, -0.4, -0.3), (0.6, 0.9, 0.6))


def pattern(rng, size):
    """A random texture in about [-1, 1]: noise of some frequency, fibres, stripes or dots."""
    kind = rng.integers(5)
    if kind == 0:
        return fractal(rng, size, int(rng.integers(2, 16)), 4, rng.uniform(0.4, 0.9)) * 0.5
    if kind == 1:
        return noise(rng, size, int(rng.integers(16, 128))) * 0.5
    if kind == 2:
        knots = int(rng.integers(20, 100))
        fibres = noise(rng, size, *((knots, 6) if rng.random() < 0.5 else (6, knots)))
        return fibres * 0.6
    rows, columns = grid(size)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.04, 0.3)
    bend = rng.uniform(0, 0.6) * noise(rng, size, 4)
    phase = (math.cos(angle) * rows + math.sin(angle) * columns) / period * 2 * np.pi + bend * 3
    if kind == 3:
        return np.sin(phase)
    across = (math.cos(angle) * columns - math.sin(angle) * rows) / period * 2 * np.pi
    return np.sin(phase) * np.sin(across)


def _texture(rng, size):
    base = random_colour(rng, (0.1,) * 3, (0.9,) * 3)
    tint = rng.uniform(-0.3, 0.3, 3).astype(np.float32)
    image = base + pattern(rng, size)[..., None] * tint
    for _ in range(int(rng.integers(0, 4))):
        clutter = sigmoid(random_star(rng, size) / rng.uniform(0.5, 6))[..., None]
        other = random_colour(rng, (0,) * 3, (1,) * 3) + pattern(rng, size)[..., None] * tint
        image = image + clutter * rng.uniform(0.2, 1) * (other - image)
    return image, rng.uniform(-1, 1, 3).astype(np.float32)
