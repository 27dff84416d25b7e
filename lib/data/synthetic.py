"""Drawn pictures with masks, for six modalities in two domains: data that needs no download.

Sample `index` of a data set is a pure function of modality, domain, seed and index. The `unseen`
domain has other contrast, noise, scale and colours than `seen`, as another hospital's pictures do.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lib.data.dataset import SegmentationDataset
from lib.data.errors import DataError
from lib.data.modalities import (
    colonoscopy,
    dermoscopy,
    fundus,
    microscopy,
    painting,
    ultrasound,
    xray,
)

PAINTERS = {
    "dermoscopy": dermoscopy,
    "xray": xray,
    "ultrasound": ultrasound,
    "fundus": fundus,
    "microscopy": microscopy,
    "colonoscopy": colonoscopy,
}
MODALITIES = tuple(PAINTERS)
DOMAINS = ("seen", "unseen")
TARGETS = {
    "dermoscopy": "skin lesion",
    "xray": "lungs",
    "ultrasound": "lesion",
    "fundus": "vessels",
    "microscopy": "nuclei",
    "colonoscopy": "polyp",
}

# Part of every fingerprint: raise it when a change of the drawing code changes the pictures.
VERSION = 1


def default_cache() -> Path:
    """Folder of generated pictures: $SYNTHETIC_CACHE, else data/synthetic in the repository."""
    chosen = os.environ.get("SYNTHETIC_CACHE")
    return Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "data" / "synthetic"


def draw(modality: str, domain: str, *, seed: int, index: int, size: int):
    """Image (size x size x 3 uint8) and mask (size x size uint8, 0 or 1) of one sample.

    One (seed, index) gives one scene at any size; only the noise of single pixels differs.
    """
    painter = PAINTERS[modality]
    words = (seed, index, MODALITIES.index(modality), DOMAINS.index(domain))
    image, mask = painter.draw(np.random.default_rng(words), size, painter.LOOKS[domain])
    return np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8), mask.astype(np.uint8)


class SyntheticDataset(SegmentationDataset):
    """`count` drawn pictures of one modality and domain, two classes, generated once and cached."""

    def __init__(
        self,
        *,
        modality: str,
        domain: str = "seen",
        count: int = 200,
        seed: int = 0,
        size: int = 256,
        cache: str | Path | None = None,
        generate: bool = True,
    ):
        """Generate the pictures, or find them in the folder `cache` (None: `default_cache()`).

        modality: one of MODALITIES; domain: "seen" or "unseen"; size: side in pixels, at least 32;
        seed: at least 0. Raises DataError for anything else. 200 pictures of 256 px take up to ten
        seconds and 52 MB of disk. generate: False raises FileNotFoundError where the pictures are
        not in the cache, whole and of this version.
        """
        _check(modality, domain, count, seed, size)
        self.modality, self.domain, self.seed = modality, domain, seed
        super().__init__(
            names=[f"{modality}-{domain}-{index:04d}" for index in range(count)],
            size=size,
            domains=[domain] * count,
            title=f"Synthetic {modality} ({TARGETS[modality]}), {domain} domain",
            licence="Apache-2.0, as this project",
            origin=f"drawn by lib.data.synthetic, version {VERSION}, seed {seed}",
        )
        folder = default_cache() if cache is None else Path(cache)
        name = f"{modality}-{domain}-{size}px-{count}-seed{seed}-{_source_digest()[:12]}"
        self._folder = folder / name
        if not self._cached():
            if not generate:
                raise FileNotFoundError(f"{self._folder}: not generated yet, or damaged")
            self._generate()

    def _load_image(self, index: int) -> np.ndarray:
        return np.array(np.load(self._folder / "images.npy", mmap_mode="r")[index])

    def _load_mask(self, index: int) -> np.ndarray:
        return np.array(np.load(self._folder / "masks.npy", mmap_mode="r")[index])

    def _fingerprint_parts(self) -> Iterable[str]:
        return ("synthetic", str(VERSION), self.modality, self.domain, str(self.seed))

    def _cached(self) -> bool:
        """Whether both arrays lie on the disk, whole: mapping a shortened file fails."""
        shape = (len(self), self.size, self.size)
        try:
            images, masks = (
                np.load(self._folder / f"{part}.npy", mmap_mode="r") for part in ("images", "masks")
            )
        except (OSError, ValueError, EOFError):
            return False
        return images.shape == (*shape, 3) and masks.shape == shape

    def _generate(self) -> None:
        """Draw all pictures into a folder beside the final one, and rename it when complete."""
        images = np.empty((len(self), self.size, self.size, 3), np.uint8)
        masks = np.empty(images.shape[:3], np.uint8)
        for index in range(len(self)):
            images[index], masks[index] = draw(
                self.modality, self.domain, seed=self.seed, index=index, size=self.size
            )
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder.parent, prefix=".unfinished-") as scratch:
            complete = Path(scratch) / "complete"
            complete.mkdir()
            np.save(complete / "images.npy", images)
            np.save(complete / "masks.npy", masks)
            if not self._cached():  # damaged, if there at all
                shutil.rmtree(self._folder, ignore_errors=True)
            try:
                complete.rename(self._folder)
            except OSError:  # another process was faster
                if not self._cached():
                    raise


def _source_digest() -> str:
    """SHA-256 of the drawing code, so that no cache outlives a change of it."""
    digest = hashlib.sha256()
    for module in (painting, *PAINTERS.values()):
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()


def _check(modality: str, domain: str, count: int, seed: int, size: int) -> None:
    if modality not in PAINTERS:
        raise DataError(f"modality must be one of {', '.join(MODALITIES)}, not {modality!r}")
    if domain not in DOMAINS:
        raise DataError(f"domain must be seen or unseen, not {domain!r}")
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("size", size, 32)):
        if value < least:
            raise DataError(f"{name} must be at least {least}, not {value}")
