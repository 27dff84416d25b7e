"""Little pictures and masks for the tests of folders."""

import numpy as np
import torch
from PIL import Image

WIDTH, HEIGHT = 24, 16


def half_mask(value=255, dtype=np.uint8, shape=(HEIGHT, WIDTH)):
    """Foreground: the left third, so that rotations and mirrors show."""
    mask = np.zeros(shape, dtype)
    mask[:, : shape[1] // 3] = value
    return mask


EXPECTED = torch.from_numpy(half_mask(1)).long()


def picture(seed=0, shape=(HEIGHT, WIDTH, 3)):
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def bands(values):
    """A label map of vertical bands of the given values."""
    return np.repeat(np.array(values), WIDTH // len(values))[None].repeat(HEIGHT, 0)


def save_pairs(root):
    """Save three good pairs, 1, 2 and 10."""
    for name in ("1", "2", "10"):
        save(root / "images" / f"{name}.png", picture(int(name)))
        save(root / "masks" / f"{name}.png", half_mask())
    return root
