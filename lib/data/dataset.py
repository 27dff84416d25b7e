"""What every data set of this project is: named images with masks, groups, domains and splits.

A subclass fills the lists and says how one image and one mask are read. Resizing, tensors and the
memory of decoded pictures live here, so that they are the same for all of them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib.data.errors import DataError, listing


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its mask.

    image: 3 x H x W float32 in [0, 1]; mask: H x W int64 in 0..classes-1, 0 is the background;
    name and index: where it stands in its data set.
    """

    image: Tensor
    mask: Tensor
    name: str
    index: int


class SegmentationDataset(torch.utils.data.Dataset):
    """Base of all data sets; index with `dataset[i]`, or read only `dataset.image(i)`.

    Attributes:
        names: unique names in a stable order; splits are lists of names.
        groups: what must not be torn apart by a split (patient, sequence); default: the name.
        domains: where the image comes from, such as "fluorescence"; "" if unknown.
        splits: the part that the data set's authors gave it: "train", "val", "test" or "".
        classes: number of classes, background included (at least 2).
        size: side in pixels of the square that images and masks are squashed to; None: as stored.
        title, licence, origin: one line each, for notebooks and records.
        notes: sentences that a user of the data should read; the audit prints them.

    Decoded pictures are kept in memory as bytes until `memory_limit` bytes are held, so that only
    the first epoch pays for decoding.
    """

    memory_limit = 1 << 30

    def __init__(
        self,
        *,
        names: Sequence[str],
        classes: int = 2,
        size: int | None = None,
        groups: Sequence[str] | None = None,
        domains: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        title: str = "",
        licence: str = "",
        origin: str = "",
    ):
        """Raise DataError when the lists do not fit together or a value is out of range."""
        self.names = list(names)
        self.groups = list(self.names if groups is None else groups)
        self.domains = [""] * len(self.names) if domains is None else list(domains)
        self.splits = [""] * len(self.names) if splits is None else list(splits)
        self.classes, self.size = classes, size
        self.title, self.licence, self.origin = title, licence, origin
        self.notes: list[str] = []
        self._check()
        self._index = {name: i for i, name in enumerate(self.names)}
        self._images: dict[int, np.ndarray] = {}
        self._masks: dict[int, np.ndarray] = {}
        self._held = 0

    def _check(self) -> None:
        if len(set(self.names)) < len(self.names):
            twice = sorted(name for name, times in Counter(self.names).items() if times > 1)
            raise DataError(f"Names must be unique; these are not:\n{listing(twice)}")
        for key in ("groups", "domains", "splits"):
            if len(getattr(self, key)) != len(self.names):
                raise DataError(
                    f"{key} has {len(getattr(self, key))} entries for {len(self.names)} names"
                )
        unknown = sorted(set(self.splits) - {"train", "val", "test", ""})
        if unknown:
            raise DataError(f"splits may hold train, val, test or nothing, not {unknown}")
        if not 2 <= self.classes <= 256:
            raise DataError(f"classes must be 2 to 256 (background included), not {self.classes}")
        if self.size is not None and self.size < 1:
            raise DataError(f"size must be a number of pixels or None, not {self.size}")

    # -- for subclasses ------------------------------------------------------------------------

    def _load_image(self, index: int) -> np.ndarray:
        """Return image `index` as stored: uint8, H x W (grey) or H x W x 3. Reads no mask."""
        raise NotImplementedError

    def _load_mask(self, index: int) -> np.ndarray:
        """Return mask `index` as stored: uint8, H x W, values 0..classes-1."""
        raise NotImplementedError

    def _fingerprint_parts(self) -> Iterable[str]:
        """Yield what else identifies the data: parameters, or names and sizes of files."""
        return ()

    # -- for everyone --------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def pixels(self, index: int) -> np.ndarray:
        """Return image `index` as uint8, H x W (grey) or H x W x 3; never touches a mask."""
        return self._keep(self._images, index, self._read_image)

    def stored(self, index: int) -> tuple[str, int, int]:
        """Return mode, width and height of image `index` before it is resized."""
        pixels = self._load_image(index)
        return "L" if pixels.ndim == 2 else "RGB", pixels.shape[1], pixels.shape[0]

    def image(self, index: int) -> Tensor:
        """Return image `index`, 3 x H x W float32 in [0, 1]. Never touches a mask."""
        return image_tensor(self.pixels(index))

    def mask(self, index: int) -> Tensor:
        """Return mask `index`, H x W int64 in 0..classes-1."""
        return torch.from_numpy(self._keep(self._masks, index, self._read_mask)).to(torch.int64)

    def __getitem__(self, index: int) -> Sample:
        """Return image and mask `index` as a Sample."""
        index = self._position(index)
        return Sample(self.image(index), self.mask(index), self.names[index], index)

    def indices(self, names: Iterable[str]) -> list[int]:
        """Return the positions of `names`; DataError names all that the data set lacks."""
        names = list(names)
        missing = [name for name in names if name not in self._index]
        if missing:
            raise DataError(
                f"{self.title or 'The data set'} has no image of these {len(missing)} names:\n"
                f"{listing(missing)}\nIs this the data set that the split was made for?"
            )
        return [self._index[name] for name in names]

    def fingerprint(self) -> str:
        """Return a SHA-256 of names, groups, classes and the data's parameters or file sizes.

        It tells data sets apart and does not depend on `size`, which only says how they are shown.
        """
        digest = hashlib.sha256()
        for part in (*self.names, *self.groups, str(self.classes), *self._fingerprint_parts()):
            digest.update(part.encode())
            digest.update(b"\0")
        return digest.hexdigest()

    # -- reading and keeping -------------------------------------------------------------------

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a data set of {len(self)} images")
        return index % len(self)

    def _keep(self, store: dict[int, np.ndarray], index: int, read) -> np.ndarray:
        index = self._position(int(index))
        if index in store:
            return store[index]
        pixels = np.ascontiguousarray(read(index))
        if self._held + pixels.nbytes <= self.memory_limit:
            store[index] = pixels
            self._held += pixels.nbytes
        return pixels

    def _read_image(self, index: int) -> np.ndarray:
        return resized(self._load_image(index), self.size, Image.Resampling.BILINEAR)

    def _read_mask(self, index: int) -> np.ndarray:
        return resized(self._load_mask(index), self.size, Image.Resampling.NEAREST)


def image_tensor(pixels: np.ndarray) -> Tensor:
    """Make a uint8 picture, H x W (grey) or H x W x 3, an image: 3 x H x W float32 in [0, 1]."""
    image = torch.from_numpy(pixels)
    image = image.expand(3, -1, -1) if image.ndim == 2 else image.permute(2, 0, 1)
    return image.to(torch.float32, memory_format=torch.contiguous_format) / 255


def resized(pixels: np.ndarray, size: int | None, resampling: Image.Resampling) -> np.ndarray:
    """Squash a uint8 picture to size x size (Pillow's bilinear averages when it shrinks)."""
    if size is None or pixels.shape[:2] == (size, size):
        return pixels
    return np.array(Image.fromarray(pixels).resize((size, size), resampling))
