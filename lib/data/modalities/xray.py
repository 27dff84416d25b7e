"""Chest X-rays: ribs, clavicles, spine, heart and diaphragm over two lungs.

The target is both lungs. Darkness alone does not find them: the air around the body and a gas
bubble below the diaphragm are dark too, the lungs differ in exposure and hold opacities, and some
pictures are negatives.
"""

import numpy as np
from numpy.random import Generator
from scipy.ndimage import uniform_filter

from lib.data.modalities.painting import (
    Look,
    contour,
    coordinates,
    edge,
    exposure,
    fractal_noise,
    grey,
    path,
    shape,
    smooth_noise,
    step,
    tubes,
)

LOOKS = {
    "seen": Look(
        scale=(0.75, 1.2),
        contrast=(0.3, 1.0),
        noise=(0.01, 0.03),
        blur=(0.0, 0.006),
        gamma=(0.75, 1.3),
        colour=((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    ),
    "unseen": Look(
        scale=(0.65, 0.85),
        contrast=(0.25, 0.6),
        noise=(0.04, 0.08),
        blur=(0.006, 0.012),
        gamma=(1.3, 1.9),
        colour=((0.8, 0.8, 0.8), (0.95, 0.95, 0.95)),
    ),
}


def draw(rng: Generator, size: int, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """One radiograph (`3 x H x W` in [0, 1], grey) and the mask of both lungs (`H x W` bool)."""
    y, x = _chest_coordinates(rng, size, look)
    contrast = rng.uniform(*look.contrast)
    lungs, inner, base = _lungs(rng, y, x)
    depth = np.maximum(*lungs)
    air = step(depth, 0.05)

    body = _body(rng, y, x)
    film = 0.62 * body + 0.05 * fractal_noise(rng, size, 3, 4) * body
    film -= contrast * rng.uniform(0.3, 0.42) * air * (1 - 0.35 * step(y - 0.2, 1.2))
    film += _heart_and_spine(rng, y, x, inner, base)
    film += contrast * _ribs(rng, y, x, depth)
    film += contrast * _clavicles(rng, size, y, x)
    film += contrast * air * _vessels(rng, size, y, x)
    film += _opacities(rng, size, lungs)
    film -= _stomach_gas(rng, y, x) * contrast
    film += 0.12 * step(y - 0.75, 0.6) * body  # the abdomen absorbs more
    film = _exposed(rng, film, size, body)
    if rng.random() < 0.15:  # stored as a negative, as happens in archives: bones are dark
        film = 1 - np.clip(film, 0, 1)
    exposed = rng.uniform(0.8, 0.97) if rng.random() < 0.4 else 1.0  # down to the collimator
    visible = step(exposed - coordinates(size)[0], edge(size))
    return exposure(rng, grey(film * visible), look), (depth > 0) & (visible > 0.5)


def _chest_coordinates(rng: Generator, size: int, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a chest of height about 2, turned, shifted, scaled and a bit warped."""
    rows, columns = coordinates(size)
    turn, zoom = rng.normal(0, 0.1), rng.uniform(*look.scale)
    y, x = rows - rng.normal(0, 0.1), columns - rng.normal(0, 0.1)
    y, x = (
        (np.cos(turn) * y - np.sin(turn) * x) / zoom,
        (np.sin(turn) * y + np.cos(turn) * x) / zoom,
    )
    return (
        (y / rng.uniform(0.9, 1.12) + 0.02 * smooth_noise(rng, size, 3)).astype(np.float32),
        (x / rng.uniform(0.9, 1.08) + 0.02 * smooth_noise(rng, size, 3)).astype(np.float32),
    )


def _lungs(rng: Generator, y, x) -> tuple[list[np.ndarray], float, float]:
    """Depth fields of the two lungs, the half width of the mediastinum, the diaphragm's row."""
    inner, diaphragm = rng.uniform(0.12, 0.2), rng.uniform(0.42, 0.63)
    fields = []
    for side in (-1, 1):
        apex, base = rng.uniform(-0.85, -0.7), diaphragm + rng.normal(0, 0.03)
        width = rng.uniform(0.52, 0.62)
        t = np.clip((y - apex) / (base - apex), 0, 1.4)
        outer = inner + width * np.clip(t * 2.4, 0, 1) ** 0.5 * (0.82 + 0.18 * np.clip(t, 0, 1))
        wall = inner + rng.uniform(0.06, 0.12) * (1 - np.clip(t * 4, 0, 1)) ** 2
        if side == 1:  # the heart takes its place from the left lung, on the right of the image
            wall = wall + rng.uniform(0.12, 0.26) * np.exp(-(((t - 0.85) / 0.3) ** 2))
        across = x * side
        middle = inner + 0.55 * width
        dome = base - rng.uniform(0.08, 0.18) * (1 - ((across - middle) / (0.6 * width)) ** 2)
        dome = dome + rng.uniform(0.1, 0.3) * np.clip(across - middle, 0, 1)
        depth = np.minimum(np.minimum(outer - across, across - wall), (dome - y))
        fields.append(np.minimum(depth, (y - apex)).astype(np.float32))
    return fields, inner, diaphragm


def _body(rng: Generator, y, x) -> np.ndarray:
    """1 inside shoulders, neck and trunk; 0 in the air around them."""
    neck, trunk = rng.uniform(0.24, 0.32), rng.uniform(0.88, 1.15)
    shoulders = step(y - rng.uniform(-0.85, -0.72), rng.uniform(0.25, 0.5))
    arms = rng.uniform(0.0, 0.25) * step(y + 0.55, 0.3)
    half = neck + (trunk - neck) * shoulders + arms - 0.1 * np.clip(y, 0, 1)
    return step(half - np.abs(x), 0.12)


def _heart_and_spine(rng: Generator, y, x, inner: float, base: float) -> np.ndarray:
    """The bright shadow in the middle."""
    spine = step(0.1 - np.abs(x), 0.06) * (0.08 + 0.025 * np.cos(y * rng.uniform(28, 36)))
    column = step(inner - np.abs(x + 0.02), 0.1) * rng.uniform(0.08, 0.16)
    # An egg that leans to the left side, and whose lower border sinks into the diaphragm.
    lean, wide = rng.uniform(0.3, 0.8), rng.uniform(0.26, 0.38)
    v, u = y - base + rng.uniform(0.18, 0.28), x - rng.uniform(0.06, 0.12)
    heart = 1 - np.hypot((u - lean * v * 0.5) / wide, v / rng.uniform(0.32, 0.4))
    knob = 1 - np.hypot((x - 0.16) / 0.1, (y + 0.25) / 0.1)
    shadow = np.maximum(step(heart, 0.15), 0.6 * step(knob, 0.3)) * (1 - step(y - base, 0.2))
    windpipe = 0.07 * step(0.045 - np.abs(x), 0.04) * step(-0.2 - y, 0.3)
    return np.maximum(column, rng.uniform(0.08, 0.16) * shadow) + spine - windpipe


def _ribs(rng: Generator, y, x, depth) -> np.ndarray:
    """Bands that fall outwards at the back and, fainter, inwards at the front."""
    reach = step(depth + 0.1, 0.15)
    spacing = rng.uniform(26, 33)
    back = np.cos(spacing * (y - 0.42 * np.sqrt(np.abs(x) + 0.02) + rng.uniform(0, 1)))
    front = np.cos(0.8 * spacing * (y + 0.5 * np.abs(x) ** 1.5 + rng.uniform(0, 1)))
    bands = step(back - 0.2, 0.6) * 0.09 + step(front - 0.35, 0.6) * rng.uniform(0.02, 0.06)
    return (bands * reach * (0.8 + 0.4 * np.clip(np.abs(x), 0, 1))).astype(np.float32)


def _clavicles(rng: Generator, size: int, y, x) -> np.ndarray:
    """Two bright bars over the apices, with denser edges."""
    bars = np.zeros((size, size), np.float32)
    for side in (-1, 1):
        rise = rng.uniform(0.1, 0.35)
        line = -0.62 + rng.normal(0, 0.04) - rise * (x * side - 0.15) + 0.08 * np.cos(6 * x)
        extent = step(0.04 - np.abs(y - line), 0.025) * step(x * side - 0.08, 0.06)
        bars += extent * step(0.85 - x * side, 0.1)
    return 0.13 * bars


def _vessels(rng: Generator, size: int, y, x) -> np.ndarray:
    """Bright markings that leave the hila and thin outwards."""
    points, widths = [], []
    for side in (-1, 1):
        for _ in range(14):
            heading = rng.uniform(-1.3, 1.3) + (0 if side == 1 else np.pi)
            line = path(
                rng, (rng.normal(-0.05, 0.05), 0.22 * side), heading, rng.uniform(0.3, 0.7), 0.25
            )
            points.append(line)
            widths.append(np.linspace(rng.uniform(0.01, 0.02), 0.003, len(line)))
    lines = step(tubes(size, np.concatenate(points), np.concatenate(widths)), 0.015)
    hilum = np.exp(-(((np.abs(x) - 0.24) / 0.09) ** 2) - ((y + 0.02) / 0.16) ** 2)
    return 0.09 * lines + rng.uniform(0.06, 0.14) * hilum + 0.02 * smooth_noise(rng, size, 40)


def _opacities(rng: Generator, size: int, lungs) -> np.ndarray:
    """Cloudy bright areas, as of pneumonia: still lung."""
    cloud = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(0, 6)):
        centre = rng.uniform((-0.5, -0.7), (0.6, 0.7))
        blob = shape(size, centre, rng.uniform(0.1, 0.4), contour(rng, roughness=0.3))
        cloud += rng.uniform(0.06, 0.32) * step(blob, 0.25)
    return cloud * step(np.maximum(*lungs) - 0.02, 0.1) * (1 + 0.3 * smooth_noise(rng, size, 16))


def _stomach_gas(rng: Generator, y, x) -> np.ndarray:
    """A dark bubble under the diaphragm, in about half of the pictures."""
    if rng.random() < 0.5:
        return np.float32(0)
    bubble = 1 - np.hypot((x - rng.uniform(0.3, 0.5)) / 0.2, (y - rng.uniform(0.72, 0.85)) / 0.11)
    return rng.uniform(0.1, 0.25) * step(bubble, 0.4)


def _exposed(rng: Generator, film: np.ndarray, size: int, body: np.ndarray) -> np.ndarray:
    """Scatter, uneven exposure and a side marker."""
    rows, columns = coordinates(size)
    film = film + 0.3 * (uniform_filter(film, size // 2, mode="nearest") - film.mean())
    tilt = rng.normal(0, 0.1, 2)
    film = film + (tilt[0] * rows + tilt[1] * columns) * body + rng.uniform(-0.12, 0.1)
    if rng.random() < 0.5:
        marker = np.maximum(np.abs(rows + 0.85), np.abs(columns - 0.85 * rng.choice((-1, 1))))
        film = film + 0.8 * step(rng.uniform(0.02, 0.05) - marker, edge(size))
    return film.astype(np.float32)
