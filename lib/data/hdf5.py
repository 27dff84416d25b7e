"""Slices in HDF5 files: one image and its label map under the keys `image` and `label`."""

from pathlib import Path

import h5py
import numpy as np

from lib.data.errors import DataError
from lib.data.reading import BROKEN, EMPTY, TEXT, BrokenPicture, Picture, to_bytes

KEYS = "HDF5 files that hold no slice of two equal shapes under the keys image and label"


def inspect_slice(path: Path) -> Picture:
    """Return the slice's size from the file's header, or raise BrokenPicture."""
    if not path.exists():
        raise BrokenPicture(BROKEN, "a link to nowhere")
    if path.stat().st_size == 0:
        raise BrokenPicture(EMPTY)
    try:
        with h5py.File(path) as file:
            shapes = [file[key].shape for key in ("image", "label") if key in file]
            if len(shapes) < 2 or len(shapes[0]) != 2 or shapes[0] != shapes[1]:
                raise BrokenPicture(KEYS, f"it has {', '.join(file)}")
            height, width = shapes[0]
            return Picture(width, height, str(file["image"].dtype), 1)
    except OSError as error:  # also what h5py raises on a file cut short
        with path.open("rb") as file:
            is_text = file.read(8).isascii() and not h5py.is_hdf5(path)
        raise BrokenPicture(TEXT if is_text else BROKEN, "" if is_text else str(error)) from error


def read_slice_image(path: Path) -> np.ndarray:
    """Return the image as uint8 H x W, stretched from its 0.5th to its 99.5th percentile."""
    return to_bytes(_read(path, "image"))


def read_slice_label(path: Path) -> np.ndarray:
    """Return the label map as stored, H x W."""
    return _read(path, "label")


def _read(path: Path, key: str) -> np.ndarray:
    try:
        with h5py.File(path) as file:
            return file[key][()]
    except (OSError, KeyError) as error:
        message = f"{path} cannot be read ({error}): copy or download it again"
        raise DataError(message, [path]) from error
