"""Fine textures, made once in each process and cropped at random.

White noise for every image would cost more than all the rest of it. A page is periodic, so its
crops have no seams; a crop is moved, flipped and turned at random, and pages mix.
"""

from functools import lru_cache

import numpy as np
from scipy import fft
from scipy.spatial import cKDTree

from .fields import double

PAGE = 512
PAGES = ("white", "grain", "blotch", "pink", "cloud", "ridge", "net", "fibre", "speckle")


def texture(rng, size, kind, *, turn=True):
    """`H x W` float32 of mean 0 and variance 1 (over many crops), of one of `PAGES`.

    `speckle` is multiplicative: mean 1, always positive. `turn`: False keeps rows level.
    """
    row, column = rng.integers(PAGE, size=2)
    field = page(kind)[row : row + size, column : column + size]
    flips = int(rng.integers(8))
    if flips & 1:
        field = field[::-1]
    if flips & 2:
        field = field[:, ::-1]
    return field.T if turn and flips & 4 else field


@lru_cache(maxsize=len(PAGES))
def page(kind):
    """A page repeated once each way: `1024 x 1024`, so that any crop of it is a plain slice."""
    rng = np.random.default_rng(PAGES.index(kind))
    if kind == "net":
        field = _net(rng)
    elif kind == "speckle":
        spectrum = _gaussian(0.8, 1.6)
        field = np.hypot(_filtered(rng, spectrum), _filtered(rng, spectrum))
        field = field / field.mean()
    else:
        field = _filtered(rng, _spectrum(kind))
        if kind == "ridge":
            field = -np.abs(field)
    if kind != "speckle":
        field = (field - field.mean()) / field.std()
    return np.tile(field.astype(np.float32), (2, 2))


def _frequencies():
    """Vertical and horizontal frequencies of a real transform: `PAGE x (PAGE / 2 + 1)` each."""
    return np.meshgrid(fft.fftfreq(PAGE), fft.rfftfreq(PAGE), indexing="ij")


def _filtered(rng, spectrum):
    white = fft.rfft2(rng.standard_normal((PAGE, PAGE), dtype=np.float32))
    field = fft.irfft2(white * spectrum.astype(np.float32))
    return (field - field.mean()) / field.std()


def _gaussian(sigma_y, sigma_x):
    """Transfer function of a Gaussian blur of these deviations in pixels."""
    y, x = _frequencies()
    return np.exp(-2 * np.pi**2 * ((sigma_y * y) ** 2 + (sigma_x * x) ** 2))


def _spectrum(kind):
    y, x = _frequencies()
    radius = np.maximum(np.hypot(y, x), 1 / PAGE)
    return {
        "white": np.ones_like(radius),
        "grain": _gaussian(0.9, 0.9),
        "blotch": _gaussian(3, 3),
        "pink": (radius + 0.01) ** -1.1,
        "cloud": (radius + 0.005) ** -1.8,
        "ridge": (radius + 0.01) ** -1.7,
        "fibre": (np.hypot(y, 8 * x) + 0.01) ** -1.2 * _gaussian(0.7, 3),
    }[kind]


def _net(rng):
    """Dark meshes between cells: the gap between the distances to the two nearest of points."""
    half = PAGE // 2
    tree = cKDTree(rng.uniform(0, half, (700, 2)), boxsize=half)
    axis = np.arange(half) + 0.5
    near = tree.query(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1), k=2)[0]
    gap = np.minimum(near[..., 1] - near[..., 0], 4).astype(np.float32)
    return double(gap)
