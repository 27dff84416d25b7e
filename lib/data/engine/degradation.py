"""What stands between a scene and its image: clutter, optics, sensor, compression."""

import numpy as np

from .fields import block_artefacts, blur, fractal, grey, grid, noise, random_colour, sigmoid
from .shapes import tubes, walk


def clutter(rng, image, style):
    """Draw what no mask belongs to: highlights, hairs, ribs, writing, stray lines."""
    size = image.shape[0]
    chance = rng.random()
    if style == "endoscopy" and chance < 0.75:
        spots = fractal(rng, size, int(rng.integers(8, 24)), 2) - rng.uniform(1.6, 2.8)
        image = image + sigmoid(spots * 12)[..., None] * rng.uniform(0.2, 0.8)
    if style == "xray" and chance < 0.8:
        bend, phase = rng.uniform(-0.8, 0.8), rng.uniform(0, 6)
        rows, columns = grid(size)
        arcs = np.sin((rows - bend * columns**2) * rng.uniform(10, 24) + phase)
        fade = sigmoid(noise(rng, size, 3) * 4)
        image = image + (np.clip(arcs, 0, 1) * fade)[..., None] * rng.uniform(0.02, 0.14)
    if (style == "dermoscopy" and chance < 0.45) or chance < 0.08:
        strands = int(rng.integers(1, 16))
        paths, width = [], rng.uniform(0.004, 0.012)
        for _ in range(strands):
            start = rng.uniform(-1, 1, 2)
            paths.append(walk(rng, 50, start, rng.uniform(0, 6.3), 0.015, 0.04))
        hair = sigmoid(tubes(size, np.concatenate(paths), np.full(strands * 50, width)))
        tone = (
            random_colour(rng, (0.0,) * 3, (0.35,) * 3) if rng.random() < 0.8 else np.float32(0.9)
        )
        image = image + hair[..., None] * rng.uniform(0.4, 0.95) * (tone - image)
    if chance > 0.9:  # rectangles: overlays, writing, calipers
        for _ in range(int(rng.integers(1, 4))):
            row, column = rng.integers(0, size - 8, 2)
            high, wide = rng.integers(4, size // 4, 2)
            image[row : row + high, column : column + wide] = rng.uniform(0, 1)
    return image


def field_of_view(rng, size, style):
    """`H x W` in {0, 1}: what the instrument sees; the rest stays black."""
    rows, columns = grid(size)
    view = np.ones((size, size), np.float32)
    chance = rng.random()
    if style == "endoscopy" and chance < 0.6:
        side, corner = rng.uniform(0.82, 1.0), rng.uniform(1.25, 1.9)
        view = (np.abs(columns) < side) & (np.abs(rows) + np.abs(columns) < corner)
    elif style == "fundus" or (style in ("endoscopy", "dermoscopy") and chance > 0.9):
        view = np.hypot(rows, columns) < rng.uniform(0.85, 1.2)
    elif style == "ultrasound" and chance < 0.2:
        apex = rng.uniform(1.2, 3)
        view = np.abs(columns) < (rows + apex) * rng.uniform(0.4, 0.8)
    return view.astype(np.float32)


def degrade(rng, image, style):
    """Light fall-off, bias field, speckle, noise, blur, low resolution, compression, gamma."""
    size = image.shape[0]
    rows, columns = grid(size)
    if rng.random() < 0.35:
        image = image * np.exp(rng.uniform(0.1, 0.5) * noise(rng, size, 2))[..., None]
    if rng.random() < (0.5 if style in ("dermoscopy", "fundus", "endoscopy") else 0.15):
        fall = (rows**2 + columns**2) ** rng.uniform(0.7, 2)
        image = image * (1 - rng.uniform(0.1, 0.45) * np.clip(fall, 0, 2))[..., None]
    if style == "ultrasound" or rng.random() < 0.06:
        fine = int(rng.integers(size // 4, size // 2 + 1))
        wide = int(fine * rng.uniform(0.35, 1))
        speckle = np.hypot(noise(rng, size, fine, wide), noise(rng, size, fine, wide)) * 0.8
        image = np.clip(image, 0, 2) * (speckle ** rng.uniform(0.1, 0.8))[..., None]
    if rng.random() < 0.4:
        image = blur(image, rng.uniform(0.5, 2.2))
    if rng.random() < 0.5:
        strength = float(np.exp(rng.uniform(np.log(0.005), np.log(0.09))))
        grain = strength * rng.standard_normal((size, size, 1), dtype=np.float32)
        image = image + (blur(grain[..., 0], 0.8)[..., None] * 2 if rng.random() < 0.4 else grain)
    image = np.clip(image, 0, 1) ** float(np.exp(rng.uniform(-0.45, 0.45)))
    if rng.random() < 0.25:
        step = rng.uniform(0.005, 0.05)
        image = np.stack([block_artefacts(image[..., c], step) for c in range(3)], -1)
    if np.ptp(image.mean((0, 1))) > 0.02 and rng.random() < 0.2:
        image = grey(image @ np.float32([0.3, 0.59, 0.11]))
    low, high = rng.uniform(-0.1, 0.1), rng.uniform(0.85, 1.2)
    return np.clip(low + (high - low) * image, 0, 1)
