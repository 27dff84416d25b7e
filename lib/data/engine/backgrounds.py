"""Empty scenes by style: where the light comes from, what lies around, which colours occur.

Styles borrow the look of a modality, not its anatomy. Images are `C x H x W` float32 in about
[0, 1], with one channel where the style is grey.
"""

import math

import numpy as np

from .fields import blur, colour, direction, grid, mosaic, noise, sign, slope, step
from .shapes import random_star, strokes, tree, walk
from .textures import texture

STYLES = {
    "endoscopy": 0.19,
    "ultrasound": 0.15,
    "dermoscopy": 0.13,
    "xray": 0.14,
    "mri": 0.14,
    "microscopy": 0.12,
    "fundus": 0.03,
    "texture": 0.1,
}


def background(rng, size, style):
    """An empty scene, and the colour change (`C x 1 x 1`) that objects of its style bring."""
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
    """A wet wall around a dark passage, or seen from near, lit by a lamp at the eye."""
    rows, columns = grid(size)
    base = colour(rng, (0.55, 0.25, 0.15), (0.95, 0.68, 0.6))
    centre = rng.uniform(-0.8, 0.8, 2)
    y, x = rows - float(centre[0]), columns - float(centre[1])
    away = np.sqrt(y * y + x * x) + rng.uniform(0.02, 0.25) * noise(rng, size, 4)
    if rng.random() < 0.6:  # a dark passage with folds around it
        edge = rng.uniform(0.1, 0.6)
        shade = rng.uniform(0.05, 0.4) + step((away - edge) * rng.uniform(4, 12))
        rings = away * rng.uniform(6, 20) + rng.uniform(0.3, 1.5) * noise(rng, size, 4)
        folds = step(noise(rng, size, 3) * 4) * np.sin(rings)
        shade = shade * (1 + rng.uniform(0.05, 0.35) * folds)
    else:
        shade = 1.15 - rng.uniform(0.15, 0.6) * away * away
        folds = blur(texture(rng, size, "ridge"), 2) if rng.random() < 0.5 else noise(rng, size, 5)
        shade = shade + np.clip(slope(folds, direction(rng)) * rng.uniform(0.1, 1.2), -0.3, 0.3)
    for _ in range(int(rng.integers(0, 3))):  # bulges and folds that are no object
        fold = random_star(rng, size, radius=rng.uniform(0.3, 0.9))
        height = np.sqrt(np.clip(fold * (1 / max(float(fold.max()), 1.0)), 0, 1))
        relief = slope(blur(height, rng.uniform(1, 6)), direction(rng)) * rng.uniform(4, 20)
        shade = shade * (1 + np.clip(relief, -0.4, 0.4))
    shade = shade * (1 + rng.uniform(0.01, 0.06) * texture(rng, size, "pink"))
    image = np.clip(shade, 0.02, 1.6) * base
    blood = np.zeros((size, size), np.float32)
    if rng.random() < 0.5:
        blood = blood + rng.uniform(0.05, 0.3) * tree(rng, size, rng.uniform(0.004, 0.014))
    if rng.random() < 0.5:  # patches of another red
        blood = blood + rng.uniform(0.03, 0.15) * texture(rng, size, "cloud")
    image = image * (1 - blood * np.float32([0.3, 0.9, 0.8])[:, None, None])
    return image, colour(rng, (-0.2, -0.6, -0.6), (0.7, 0.6, 0.6))


def _ultrasound(rng, size):
    """Layers of tissue that darken with depth; `degradation` adds the speckle."""
    rows, _ = grid(size)
    tissue = 1 + rng.uniform(0.1, 0.4) * noise(rng, size, int(rng.integers(4, 16)), 4)
    tissue = tissue + rng.uniform(0.1, 0.35) * mosaic(rng, size, int(rng.integers(3, 7)), 3, 12)
    tissue = tissue + rng.uniform(0, 0.25) * texture(rng, size, "fibre", turn=False)
    if rng.random() < 0.7:  # bright fascia, mostly level
        strands = np.clip(texture(rng, size, "fibre", turn=False) - rng.uniform(0.8, 2), 0, None)
        tissue = tissue + rng.uniform(0.3, 1.0) * strands * step(3 * noise(rng, size, 4))
    if rng.random() < 0.5:  # skin
        skin = rng.uniform(-0.97, -0.7) - 0.03 * noise(rng, size, 3)
        tissue = tissue + rng.uniform(0.3, 1) * np.exp(
            -(((rows - skin) * rng.uniform(12, 40)) ** 2)
        )
    for _ in range(int(rng.integers(0, 3))):  # shadows that belong to nothing
        dark = random_star(rng, size, rng.uniform((-0.2, -0.9), (0.9, 0.9)), rng.uniform(0.2, 0.7))
        tissue = tissue * (1 - rng.uniform(0.2, 0.7) * step(dark / rng.uniform(6, 30)))
    fade = np.exp(-rng.uniform(0, 1.2) * np.clip(rows - rng.uniform(-0.8, 0.6), 0, None))
    image = rng.uniform(0.2, 0.5) * np.clip(tissue, 0.02, 4) * fade
    return image[None], _grey_tone(rng, (-0.9, -0.5, 0.5), (0.55, 0.85))


def _dermoscopy(rng, size):
    """Skin with pores, freckles, creases and what lies on it."""
    skin = colour(rng, (0.6, 0.42, 0.35), (0.97, 0.85, 0.82))
    shade = 1 + rng.uniform(0.01, 0.05) * texture(rng, size, "cloud")
    shade = shade + rng.uniform(0, 0.025) * texture(rng, size, "pink")
    if rng.random() < 0.4:
        shade = shade + rng.uniform(0.005, 0.03) * texture(rng, size, "net")
    image = shade * skin
    blush = (
        rng.uniform(0, 0.05) * noise(rng, size, 4) * np.float32([0.2, -0.5, -0.4])[:, None, None]
    )
    if rng.random() < 0.3:
        freckles = step((texture(rng, size, "blotch") - rng.uniform(1.2, 2.5)) * 6)
        blush = blush - freckles * rng.uniform(0.05, 0.2) * colour(rng, (0.4,) * 3, (1.0,) * 3)
    image = image + blush
    if rng.random() < 0.15:  # a coloured marker that reaches in
        depth = random_star(rng, size, 1.1 * direction(rng), rng.uniform(0.3, 0.6), 1.3)
        image = _lay(image, depth, colour(rng, (0, 0, 0), (1, 1, 1)), rng)
    return image, -colour(rng, (0.2, 0.45, 0.45), (0.8, 1.0, 1.0))


def _xray(rng, size):
    """A body on dark, soft tissue and bones."""
    rows, columns = grid(size)
    body = rng.uniform(0.35, 0.65) + rng.uniform(0.01, 0.06) * texture(rng, size, "cloud")
    middle = columns - rng.uniform(-0.15, 0.15) - 0.04 * noise(rng, size, 3)
    spine = np.exp(-0.5 * (middle * (1 / rng.uniform(0.06, 0.25))) ** 2)
    if rng.random() < 0.5:  # vertebrae
        spine = spine * (1 + 0.25 * np.sin(rows * rng.uniform(18, 34)))
    body = body + rng.uniform(0, 0.3) * spine + rng.uniform(-0.1, 0.2) * rows
    if rng.random() < 0.4:
        body = body + rng.uniform(0.03, 0.12) * mosaic(rng, size, 4, 3, 20)
    for _ in range(int(rng.integers(0, 4))):  # long bones, collar bones
        path = walk(rng, 30, rng.uniform(-1, 1, 2), rng.uniform(0, 6.3), 0.06, 0.06)
        width = np.full(30, rng.uniform(0.015, 0.06))
        bone = strokes(size, [path], [width])
        core = strokes(size, [path], [width * 0.6]) if rng.random() < 0.6 else 0
        body = body + rng.uniform(0.03, 0.15) * blur(bone - 0.6 * core, 1.0)
    if rng.random() < 0.7:
        outside = random_star(rng, size, (rng.uniform(0, 0.5), 0.0), rng.uniform(0.9, 1.3), 1.2)
        body = body * (rng.uniform(0, 0.1) + step(outside / rng.uniform(0.5, 8)))
    if rng.random() < 0.1:
        body = 1 - body
    return body[None], _grey_tone(rng, (-0.9, -0.5, 0.5), (0.4, 0.7))


def _mri(rng, size):
    """A slice: a bright or dark rind, and organs of all sizes in flat shades."""
    body = random_star(rng, size, rng.uniform(-0.3, 0.3, 2), rng.uniform(0.7, 1.4), 1.5)
    inside = step(body * 1.5)
    shades = rng.uniform(0.1, 0.45) + rng.uniform(0.05, 0.3) * mosaic(
        rng, size, int(rng.integers(4, 10)), int(rng.integers(3, 7))
    )
    if rng.random() < 0.5:  # smaller things here and there
        small = mosaic(rng, size, int(rng.integers(10, 22)), 3)
        shades = shades + rng.uniform(0.1, 0.35) * small * step(4 * noise(rng, size, 4))
    if rng.random() < 0.5:  # a large dark or bright hollow
        hollow = step(random_star(rng, size, rng.uniform(-0.4, 0.4, 2), rng.uniform(0.3, 0.7)))
        shades = shades + hollow * (rng.uniform(0, 0.5) - shades)
    if rng.random() < 0.6:
        rind = np.exp(-0.5 * ((body - rng.uniform(2, 10)) / rng.uniform(1, 7)) ** 2)
        shades = shades + rng.uniform(-0.2, 0.8) * rind * step(3 * noise(rng, size, 3) + 2)
    shades = shades * (1 + rng.uniform(0, 0.2) * texture(rng, size, "pink"))
    vessels = step((texture(rng, size, "blotch") - rng.uniform(1.8, 3)) * 8)
    shades = shades + rng.uniform(0, 0.5) * vessels
    image = rng.uniform(0, 0.06) + inside * np.clip(shades, 0, 1.2)
    return image[None], _grey_tone(rng, (-1, 0, 1), (0.4, 0.4))


def _microscopy(rng, size):
    """Dark with glowing objects, stained tissue, or bright field."""
    uneven = rng.uniform(0, 0.3) * noise(rng, size, 2)
    look = rng.random()
    if look < 0.55:  # fluorescence, often faint
        channels = 1 if look < 0.4 else 3
        tint = np.ones((1, 1, 1), np.float32)
        if channels == 3:
            tint = colour(rng, (0,) * 3, (1,) * 3)
        level = math.exp(rng.uniform(math.log(0.005), math.log(0.2)))
        haze = 1 + uneven + rng.uniform(0, 0.5) * np.clip(texture(rng, size, "cloud"), -1.5, 3)
        image = (level * np.clip(haze, 0, None)) * tint
        return image, tint * math.exp(rng.uniform(math.log(0.08), 0))
    grain = texture(rng, size, "net" if rng.random() < 0.3 else "pink")
    tissue = 1 + 0.3 * uneven + rng.uniform(0, 0.12) * grain
    for _ in range(int(rng.integers(0, 3))):  # other tissue, lumens
        other = step((noise(rng, size, int(rng.integers(3, 8))) - rng.uniform(0, 1.5)) * 10)
        tissue = tissue * (1 - rng.uniform(-0.15, 0.3) * other)
    if look < 0.75:
        return (rng.uniform(0.5, 0.9) * tissue)[None], _grey_tone(rng, (-1, -1, -0.6), (0.3, 0.8))
    stain = colour(rng, (0.65, 0.45, 0.6), (0.97, 0.9, 0.95))
    return tissue * stain, -colour(rng, (0.4, 0.5, 0.1), (0.9, 1.0, 0.6))


def _fundus(rng, size):
    """The back of an eye; its vessels are an object."""
    base = colour(rng, (0.5, 0.2, 0.05), (0.95, 0.5, 0.3))
    shade = 1 + 0.12 * texture(rng, size, "cloud") + 0.03 * texture(rng, size, "pink")
    image = shade * base
    if rng.random() < 0.7:
        disc = random_star(rng, size, rng.uniform(-0.6, 0.6, 2), rng.uniform(0.1, 0.2), 1.2)
        image = image + step(disc / rng.uniform(1, 6)) * colour(rng, (0.1,) * 3, (0.5,) * 3)
    return image, colour(rng, (-0.5, -0.4, -0.3), (0.6, 0.9, 0.6))


def pattern(rng, size):
    """A random texture of mean near 0 and deviation near 1: cloudy, net-like, fibrous, waves."""
    roll = rng.random()
    if roll < 0.6:
        kind = ("white", "grain", "blotch", "pink", "cloud", "ridge", "net", "fibre")
        return texture(rng, size, kind[int(rng.integers(len(kind)))])
    if roll < 0.7:
        return 1.5 * mosaic(rng, size, int(rng.integers(4, 24)), 3)
    rows, columns = grid(size)
    angle, period = rng.uniform(0, math.pi), rng.uniform(0.04, 0.3)
    cos, sin = math.cos(angle) * 2 * math.pi / period, math.sin(angle) * 2 * math.pi / period
    waves = np.sin(cos * rows + sin * columns + rng.uniform(0, 1.8) * noise(rng, size, 4))
    if roll < 0.85:
        return 1.4 * waves
    return 2 * waves * np.sin(cos * columns - sin * rows)


def _texture(rng, size):
    """A collage: patterns in regions, in grey or in any colours."""
    channels = 1 if rng.random() < 0.35 else 3
    low, high = np.zeros(channels), np.ones(channels)
    tint = colour(rng, low - 0.25, high - 0.75)
    image = colour(rng, low + 0.1, high - 0.1) + pattern(rng, size) * tint
    for _ in range(int(rng.integers(0, 4))):
        other = colour(rng, low, high) + pattern(rng, size) * tint
        if rng.random() < 0.5:
            image = _lay(image, random_star(rng, size), other, rng)
        else:
            image = _lay(image, 20 * noise(rng, size, int(rng.integers(2, 6))), other, rng)
    return image, colour(rng, low - 1, high)


def _lay(image, depth, other, rng):
    """`other` over `image` where `depth` is positive, more or less opaque, sharp or soft."""
    return image + step(depth / rng.uniform(0.3, 4)) * rng.uniform(0.4, 1) * (other - image)


def _grey_tone(rng, levels, chances):
    """One of three brightness changes (`1 x 1 x 1`), with cumulative `chances` of the first two."""
    roll = rng.random()
    level = levels[0] if roll < chances[0] else levels[1] if roll < chances[1] else levels[2]
    level = level or sign(rng) * rng.uniform(0.3, 1)
    return np.full((1, 1, 1), level, np.float32)
