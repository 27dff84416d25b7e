"""One picture: read for a model, its mask at its own size, the two files that are written."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from lib.data.dataset import image_tensor, resized
from lib.data.errors import DataError
from lib.data.reading import BrokenPicture, inspect, read_image
from lib.files import replacing

# Colours of the foreground classes 1, 2, ...: Okabe and Ito (2008), as in lib.display.style.
COLOURS = ("#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
ALPHA = 0.45  # of the colours over the picture


def read_picture(path: Path) -> np.ndarray:
    """Return the picture as `lib.data.reading.read_image` does.

    Raises:
        DataError: a file that is broken, no picture, or several pages.
    """
    try:
        inspect(path)
    except BrokenPicture as broken:
        detail = f" ({broken.detail})" if broken.detail else ""
        raise DataError(f"{path}: {broken.kind}{detail}", [path]) from broken
    return read_image(path)


def model_input(pixels: np.ndarray, size: int) -> Tensor:
    """Return the picture as in training: squashed, 3 x size x size in [0, 1]."""
    return image_tensor(resized(pixels, size, Image.Resampling.BILINEAR))


def mask_of(logits: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Return the class of each pixel, H x W uint8 of `shape`, from logits C x h x w.

    Logits are interpolated, not classes, so that outlines are smooth in large pictures.
    """
    logits = logits.float()
    if len(logits) == 2:  # their difference says the same at half the cost
        logits = logits[1:] - logits[:1]
    larger = functional.interpolate(logits[None], shape, mode="bilinear")[0]
    classes = larger[0] > 0 if len(larger) == 1 else larger.argmax(dim=0)
    return classes.to(torch.uint8).numpy()


def write_mask(mask: np.ndarray, classes: int, path: Path) -> None:
    """Write H x W classes as PNG: 0 and 255 for two classes, else their numbers with a palette."""
    if classes == 2:
        picture = Image.fromarray(mask * np.uint8(255))
    else:
        picture = Image.fromarray(mask)
        picture.putpalette(_palette(classes).tobytes())
    _save(picture, path)


def write_overlay(pixels: np.ndarray, mask: np.ndarray, path: Path) -> None:
    """Write the picture with each foreground class in its colour over it, as PNG."""
    shown = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels.copy()
    foreground = mask > 0
    colours = _palette(int(mask.max(initial=0)) + 1)[mask[foreground]]
    blended = (1 - ALPHA) * shown[foreground] + ALPHA * colours
    shown[foreground] = blended.round().astype(np.uint8)
    _save(Image.fromarray(shown), path)


def _palette(classes: int) -> np.ndarray:
    """Return RGB of classes 0, 1, ...; black for the background, the colours start over."""
    rgb = [tuple(bytes.fromhex(colour[1:])) for colour in COLOURS]
    return np.array([(0, 0, 0), *(rgb[i % len(rgb)] for i in range(classes - 1))], np.uint8)


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        picture.save(temporary, "PNG", compress_level=1)  # a third of the time of level 6
