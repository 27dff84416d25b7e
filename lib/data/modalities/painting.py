"""What all drawn modalities share: smooth noise, closed contours, tubes, shading and exposure.

Fields are `H x W` float32 arrays, images `3 x H x W`. Positions and lengths are in half sides of
the image: rows and columns run from -1 to 1 whatever the size, so one seed gives one scene at any
resolution. For that reason noise of single pixels, and only that, has a generator of its own.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter

Range = tuple[float, float]
DIRECTIONS = 360


@dataclass(frozen=True)
class Look:
    """What sets a domain apart from the other one of its modality: ranges that pictures draw from.

    scale: factor on the size of objects; contrast: factor on what tells target from surroundings;
    noise: deviation of sensor noise; blur: deviation in half sides; gamma: exponent of the tone
    curve; colour: two RGB multipliers, the tint of a camera lies between them.
    """

    scale: Range
    contrast: Range
    noise: Range
    blur: Range
    gamma: Range
    colour: tuple[tuple[float, float, float], tuple[float, float, float]]


@lru_cache(maxsize=8)
def coordinates(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixel centres, two `size x size` arrays between -1 and 1."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    rows.flags.writeable = columns.flags.writeable = False
    return rows, columns


@lru_cache(maxsize=256)
def _spline_weights(size: int, cells: int) -> np.ndarray:
    """`size x (cells + 3)` values of the cubic B-splines over `cells` equal cells."""
    positions = (np.arange(size) + 0.5) / size * cells
    knots = np.arange(-3, cells + 4)
    return BSpline.design_matrix(positions, knots, 3).toarray().astype(np.float32)


def smooth_noise(rng: Generator, size: int, cells: int, cells_x: int | None = None) -> np.ndarray:
    """Gaussian noise, mean 0 and deviation about 1, that varies over `cells` cells a side.

    Another `cells_x` for the columns stretches it (tissue layers, fibres).
    """
    cells_x = cells_x or cells
    coefficients = rng.standard_normal((cells + 3, cells_x + 3), dtype=np.float32)
    field = _spline_weights(size, cells) @ coefficients @ _spline_weights(size, cells_x).T
    # The squares of cubic B-splines sum to 151/315 on average, along each of the two axes.
    return field / np.float32(151 / 315)


def fractal_noise(
    rng: Generator, size: int, cells: int, octaves: int = 4, persistence: float = 0.6
) -> np.ndarray:
    """Smooth noise summed over doubling frequencies, deviation about 1."""
    amplitudes = persistence ** np.arange(octaves)
    layers = [a * smooth_noise(rng, size, cells * 2**k) for k, a in enumerate(amplitudes)]
    return np.sum(layers, axis=0) / np.float32(np.linalg.norm(amplitudes))


def pixel_noise(rng: Generator, size: int, channels: int = 1) -> np.ndarray:
    """Independent Gaussian noise a pixel, `channels x size x size`, from a child generator."""
    return rng.spawn(1)[0].standard_normal((channels, size, size), dtype=np.float32)


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a field or an image; sigma in half sides."""
    pixels = sigma * field.shape[-1] / 2
    if pixels < 0.2:
        return field
    return gaussian_filter(field, pixels, axes=(-2, -1), truncate=3, mode="nearest")


def contour(rng: Generator, *, roughness: float, waves: int = 12, fall: float = 1.2) -> np.ndarray:
    """Radii of a closed contour over `DIRECTIONS` directions, geometric mean 1.

    A Fourier series of `waves` terms from order 2; amplitudes fall as order ** -fall.
    """
    order = np.arange(2, waves + 2)
    strength = roughness * rng.standard_normal(waves) * (2 / order) ** fall
    phase = rng.uniform(0, 2 * np.pi, waves)
    theta = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    series = strength @ np.cos(order[:, None] * theta + phase[:, None])
    return np.exp(np.clip(series, -0.9, 0.7)).astype(np.float32)


def shape(
    size: int, centre, radius: float, radii: np.ndarray, *, stretch: float = 1.0, angle: float = 0.0
) -> np.ndarray:
    """Depth field of a contour: about the distance to its border, positive inside.

    centre: row and column; radius: mean radius; stretch: ratio of the axes; angle: turn in radians.
    """
    rows, columns = coordinates(size)
    y, x = rows - np.float32(centre[0]), columns - np.float32(centre[1])
    cos, sin, root = np.float32(np.cos(angle)), np.float32(np.sin(angle)), np.float32(stretch**0.5)
    u, v = (cos * x + sin * y) / root, (cos * y - sin * x) * root
    turn = np.arctan2(v, u) * np.float32(DIRECTIONS / (2 * np.pi))
    below = np.floor(turn).astype(np.int32)
    part = turn - below
    limit = radii[below % DIRECTIONS] * (1 - part) + radii[(below + 1) % DIRECTIONS] * part
    return limit * np.float32(radius) - np.hypot(u, v)


def tubes(size: int, points: np.ndarray, radii: np.ndarray, margin: float = 0.01) -> np.ndarray:
    """Depth field of discs around `points` (N x 2) of `radii` (N), overlapping into tubes.

    Exact up to `margin` outside the discs; farther away it is only known to be below -margin.
    """
    half = size / 2
    centres, radii = (points + 1) * half - 0.5, radii * half
    border = int(np.ceil(radii.max() + margin * half)) + 1
    inside = ((centres > -border) & (centres < size - 1 + border)).all(axis=1)
    centres, radii = centres[inside].astype(np.float32), radii[inside].astype(np.float32)
    reaches = np.ceil(radii + margin * half).astype(int)
    field = np.full((size + 4 * border,) * 2, -2 * margin * half - 2, np.float32)
    for reach in np.unique(reaches):  # thin tubes touch few pixels
        chosen = reaches == reach
        centre = centres[chosen][..., None]
        pixel = np.rint(centre).astype(np.int32) + np.arange(-reach, reach + 1)
        offset = (pixel - centre) ** 2
        depth = radii[chosen, None, None] - np.sqrt(offset[:, 0, :, None] + offset[:, 1, None, :])
        pixel = pixel + 2 * border
        np.maximum.at(field, (pixel[:, 0, :, None], pixel[:, 1, None, :]), depth)
    return field[2 * border : -2 * border, 2 * border : -2 * border] / half


def path(rng: Generator, start, heading: float, length: float, bend: float) -> np.ndarray:
    """Points (N x 2) along a curve whose heading drifts by about `bend` radians over its length."""
    steps = max(4, int(length / 0.006))
    drift = np.cumsum(rng.standard_normal(8))
    turn = heading + bend * np.interp(np.linspace(0, 7, steps), np.arange(8), drift)
    stride = length / steps * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    return np.asarray(start) + np.cumsum(stride, axis=0)


def step(field: np.ndarray, width: float) -> np.ndarray:
    """0 outside, 1 inside, smooth over `width` around the border of a depth field."""
    t = np.clip(field / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def edge(size: int) -> float:
    """One pixel in half sides: the width of an antialiased border."""
    return 2 / size


def shading(height: np.ndarray, light, ambient: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse brightness and highlight of a surface seen from above, lit from `light`.

    height: in half sides; light: (row, column, towards the viewer). Both results in [0, 1].
    """
    slope = np.gradient(height, 2 / height.shape[0])
    down, right, up = np.asarray(light, np.float32) / np.linalg.norm(light)
    length = np.sqrt(slope[0] ** 2 + slope[1] ** 2 + 1)
    cosine = (up - slope[0] * down - slope[1] * right) / length
    # Blinn-Phong: the normal against the half-way direction between light and viewer.
    half = np.asarray([down, right, up + 1], np.float32)
    half /= np.linalg.norm(half)
    towards = (half[2] - slope[0] * half[0] - slope[1] * half[1]) / length
    return ambient + (1 - ambient) * np.clip(cosine, 0, 1), np.clip(towards, 0, 1)


def plain(colour, size: int) -> np.ndarray:
    """An image of one RGB colour (read only)."""
    return np.broadcast_to(_planes(colour), (3, size, size))


def mix(image: np.ndarray, colour, amount) -> np.ndarray:
    """Blend an image towards an RGB colour by `amount` (a field or a number)."""
    return image + (_planes(colour) - image) * np.asarray(amount, np.float32)


def darken(image: np.ndarray, colour, amount) -> np.ndarray:
    """Take the share `colour` (RGB) of each channel away, times `amount` (a field)."""
    return image * (1 - _planes(colour) * np.asarray(amount, np.float32))


def grey(field: np.ndarray) -> np.ndarray:
    """A field as a grey image."""
    return np.repeat(field[None], 3, axis=0)


def exposure(rng: Generator, image: np.ndarray, look: Look) -> np.ndarray:
    """The camera: blur, tone curve, tint and noise of a domain. Returns values in [0, 1]."""
    size = image.shape[1]
    image = np.clip(blur(image, rng.uniform(*look.blur)), 0, 1) ** rng.uniform(*look.gamma)
    dark, light = _planes(look.colour[0]), _planes(look.colour[1])
    image = image * (dark + (light - dark) * np.float32(rng.random()))
    # Sensor noise, weaker in the dark; half of it common to the channels.
    level = rng.uniform(*look.noise) * (0.4 + 0.6 * image.mean(axis=0))
    noise = pixel_noise(rng, size, 3) * 0.7 + pixel_noise(rng, size) * 0.7
    return np.clip(image + level * noise, 0, 1).astype(np.float32)


def _planes(colour) -> np.ndarray:
    """An RGB colour in a shape that broadcasts against images."""
    return np.asarray(colour, np.float32)[:, None, None]
