"""Dermoscopy: a pigmented lesion on skin, under hair, with rulers, ink and dark corners.

The target is the lesion. Skin and lesion come in many tones, borders are ragged and faint, parts
of a lesion are paler than the skin; hair, vignette and redness are dark without being lesion.
"""

import numpy as np
from numpy.random import Generator

from lib.data.modalities.painting import (
    Look,
    contour,
    coordinates,
    edge,
    exposure,
    fractal_noise,
    mix,
    path,
    plain,
    shape,
    smooth_noise,
    step,
    tubes,
)

LOOKS = {
    "seen": Look(
        scale=(0.8, 1.2),
        contrast=(0.4, 1.0),
        noise=(0.01, 0.025),
        blur=(0.0, 0.006),
        gamma=(0.85, 1.2),
        colour=((1.0, 0.97, 0.93), (1.0, 1.0, 1.05)),
    ),
    "unseen": Look(
        scale=(0.45, 0.75),
        contrast=(0.25, 0.6),
        noise=(0.03, 0.06),
        blur=(0.006, 0.014),
        gamma=(1.0, 1.4),
        colour=((0.8, 0.9, 1.1), (0.95, 0.85, 0.65)),
    ),
}

SKIN = np.array([[0.93, 0.76, 0.68], [0.86, 0.63, 0.52], [0.72, 0.48, 0.36], [0.50, 0.32, 0.24]])
PIGMENT = np.array(
    [[0.55, 0.32, 0.2], [0.35, 0.2, 0.14], [0.2, 0.13, 0.12], [0.42, 0.42, 0.47], [0.75, 0.4, 0.38]]
)


def draw(rng: Generator, size: int, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """One picture (`3 x H x W` in [0, 1]) and the mask of its lesion (`H x W` bool)."""
    tone = (len(SKIN) - 1.01) * rng.beta(1, 1.8)  # more light skins than dark, as in archives
    skin = SKIN[int(tone)] + (tone % 1) * (SKIN[int(tone) + 1] - SKIN[int(tone)])
    image = _skin(rng, size, skin)
    depth, radius = _lesion(rng, size, look)
    image = _pigment(rng, image, depth, radius, skin, rng.uniform(*look.contrast))
    image = _marks(rng, image)
    image = _hair(rng, image)
    image = _light(rng, image)
    return exposure(rng, image, look), depth > 0


def _skin(rng: Generator, size: int, skin: np.ndarray) -> np.ndarray:
    """Skin with fine lines, redness and freckles."""
    image = plain(skin, size)
    image = image * (1 + 0.05 * fractal_noise(rng, size, 3, 5))
    lines = np.abs(smooth_noise(rng, size, 30)) * np.abs(smooth_noise(rng, size, 44, 24))
    image = image * (1 - 0.06 * np.exp(-((lines / 0.1) ** 2)))
    for _ in range(rng.integers(0, 4)):  # redness
        blob = shape(
            size, rng.uniform(-1, 1, 2), rng.uniform(0.1, 0.45), contour(rng, roughness=0.25)
        )
        redder = skin * np.array([0.95, 0.65, 0.65])
        image = mix(image, redder, rng.uniform(0.15, 0.6) * step(blob, rng.uniform(0.1, 0.4)))
    freckles = rng.uniform(-1, 1, (rng.integers(1, 10), 2))
    depth = tubes(size, freckles, rng.uniform(0.01, 0.05, len(freckles)), margin=0.02)
    return mix(image, skin * 0.6, rng.uniform(0.2, 0.7) * step(depth, 0.03))


def _lesion(rng: Generator, size: int, look: Look) -> tuple[np.ndarray, float]:
    """Depth field of an irregular lesion near the middle, and its radius."""
    radius = np.exp(rng.uniform(np.log(0.2), np.log(0.75))) * rng.uniform(*look.scale)
    depth = shape(
        size,
        rng.normal(0, 0.2, 2).clip(-0.5, 0.5),
        radius,
        contour(rng, roughness=rng.uniform(0.05, 0.2), waves=12, fall=1.3),
        stretch=rng.uniform(1.0, 1.8),
        angle=rng.uniform(0, np.pi),
    )
    return depth + rng.uniform(0.05, 0.14) * radius * fractal_noise(rng, size, 5, 4, 0.7), radius


def _pigment(rng: Generator, image, depth, radius: float, skin, contrast: float) -> np.ndarray:
    """Two or three colours in patches, network, globules and pale regression, softly bordered."""
    size = image.shape[1]
    # The darker the skin, the darker its lesions.
    colours = PIGMENT[rng.choice(len(PIGMENT), 3, p=(0.4, 0.25, 0.1, 0.1, 0.15))] * (
        0.4 + 0.7 * skin
    )
    inside = image
    for colour in colours:
        where = step(fractal_noise(rng, size, 3, 3) + rng.uniform(0, 0.8), 1.2)
        inside = mix(inside, colour, rng.uniform(0.5, 0.95) * where)
    mesh = np.abs(smooth_noise(rng, size, int(rng.integers(22, 34))))
    network = np.exp(-((mesh / 0.35) ** 2)) * step(smooth_noise(rng, size, 3), 1.0)
    inside = inside * (1 - rng.uniform(0.0, 0.4) * network)
    globules = step(smooth_noise(rng, size, 26) - 1.3, 0.3) * step(smooth_noise(rng, size, 3), 1.0)
    inside = inside * (1 - rng.uniform(0.0, 0.5) * globules)
    pale = step(fractal_noise(rng, size, 3, 3) - rng.uniform(0.7, 1.6), 0.5)
    inside = mix(inside, np.minimum(skin * 1.15, 1), rng.uniform(0.4, 0.9) * pale)
    border = step(depth, rng.uniform(0.04, 0.35) * radius)
    strength = np.clip(contrast * (0.9 + 0.2 * smooth_noise(rng, size, 3)), 0, 1)
    return image + (inside - image) * (border * strength)


def _marks(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Ruler, ink and calibration sticker, each in some pictures."""
    size = image.shape[1]
    rows, columns = coordinates(size)
    if rng.random() < 0.3:
        turn, place = rng.normal(0, 0.2), rng.uniform(0.6, 0.9) * rng.choice((-1, 1))
        v = np.cos(turn) * rows - np.sin(turn) * columns - place
        u = np.cos(turn) * columns + np.sin(turn) * rows
        tick = np.abs((u / 0.05 + 0.5) % 1 - 0.5) * 0.05
        long = np.where(np.rint(u / 0.05) % 5 == 0, 0.09, 0.05)
        ruler = step(0.006 - tick, edge(size)) * ((v > 0) & (v < long) & (np.abs(u) < 0.6))
        image = mix(image, (0.15, 0.12, 0.12), 0.8 * ruler)
    if rng.random() < 0.2:
        strokes = [
            path(rng, rng.uniform(-0.9, 0.9, 2), rng.uniform(0, 6.28), 0.5, 1.2) for _ in "ab"
        ]
        ink = tubes(
            size, np.concatenate(strokes), np.full(sum(map(len, strokes)), 0.018), margin=0.03
        )
        ragged = step(ink + 0.01 * smooth_noise(rng, size, 60), 0.02)
        image = mix(image, (0.4, 0.25, 0.6), rng.uniform(0.3, 0.7) * ragged)
    if rng.random() < 0.12:
        corner = np.hypot(rows - rng.choice((-1, 1)), columns - rng.uniform(-1, 1))
        colour = [(0.25, 0.65, 0.65), (0.85, 0.7, 0.2), (0.2, 0.3, 0.6)][rng.integers(3)]
        image = mix(image, colour, step(rng.uniform(0.25, 0.4) - corner, edge(size)))
    return image


def _hair(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Thin curved dark (or grey) hairs across everything, in two of three pictures."""
    if rng.random() < 0.35:
        return image
    size = image.shape[1]
    lean = rng.uniform(0, 2 * np.pi)
    hairs = [
        path(rng, rng.uniform(-1.1, 1.1, 2), lean + rng.normal(0, 0.5), rng.uniform(0.6, 1.8), 0.35)
        for _ in range(rng.integers(2, 22))
    ]
    widths = [np.full(len(hair), rng.uniform(0.003, 0.008)) for hair in hairs]
    depth = tubes(size, np.concatenate(hairs), np.concatenate(widths))
    colour = [(0.1, 0.07, 0.06), (0.3, 0.2, 0.13), (0.6, 0.55, 0.5)][rng.integers(3)]
    return mix(image, colour, rng.uniform(0.5, 0.9) * step(depth, max(0.008, edge(size))))


def _light(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Uneven light, a dark or black vignette, and glints of the contact gel."""
    size = image.shape[1]
    rows, columns = coordinates(size)
    distance = np.hypot(rows, columns)
    slope = rng.normal(0, 0.1, 2)
    lit = 1 + slope[0] * rows + slope[1] * columns - rng.uniform(0.0, 0.3) * distance**2
    if rng.random() < 0.3:
        lit = lit * step(rng.uniform(1.0, 1.25) - distance, rng.uniform(0.02, 0.3))
    gel = step(smooth_noise(rng, size, 34) - rng.uniform(2.8, 4.5), 0.4)
    image = np.clip(image * np.maximum(lit, 0.02), 0, 1)
    return mix(image, (1.0, 1.0, 1.0), 0.6 * gel)
