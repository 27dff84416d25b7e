"""Small folders on disk that hold what real ones hold: oddities, faults, films.

For lessons and for trying out tools: what `lib.data.folder` reads right, what it refuses, and what
a split must keep together.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lib.data.dataset import SegmentationDataset

_ORIENTATION = 0x0112  # EXIF tag
_TURN_RIGHT = 6  # its value for "turn by 90 degrees clockwise before showing"


def awkward_folder(root: Path, dataset: SegmentationDataset) -> Path:
    """Write three pairs that can be read in one way only, but easily wrongly.

    "scan 2": a grey image and a 1-bit mask without any object. "scan 9 (left)": an image with
    transparency and a mask of half its size. "scan 10": a photograph that is stored lying and
    carries its rotation as an EXIF tag, its mask upright. Beside them lies a file of text.
    """
    images, masks = _pair_folders(root)
    picture, mask = _pictures(dataset, 0)
    wide = (0, 0, picture.width, 3 * picture.height // 4)  # so that lying and upright differ
    picture, mask = picture.crop(wide), mask.crop(wide)
    picture.convert("L").save(images / "scan 2.png")
    Image.new("1", picture.size).save(masks / "scan 2.png")
    picture.convert("RGBA").save(images / "scan 9 (left).png")
    half = (picture.width // 2, picture.height // 2)
    mask.resize(half).save(masks / "scan 9 (left).png")
    tag = Image.Exif()
    tag[_ORIENTATION] = _TURN_RIGHT
    picture.rotate(90, expand=True).save(images / "scan 10.jpg", exif=tag)
    mask.save(masks / "scan 10_mask.png")
    (images / "notes.txt").write_text("from the second ward", "utf-8")
    return root


def broken_folder(root: Path, dataset: SegmentationDataset) -> Path:
    """Write six pairs, five of them with a fault in one file, and a mask without an image."""
    images, masks = _pair_folders(root)
    picture, mask = _pictures(dataset, 0)
    for name in ("whole", "cut short", "no mask", "twice", "pointer", "empty file"):
        picture.save(images / f"{name}.jpg")
        mask.save(masks / f"{name}.png")
    whole = (images / "whole.jpg").read_bytes()
    (images / "cut short.jpg").write_bytes(whole[: len(whole) // 2])
    (masks / "no mask.png").unlink()
    mask.save(masks / "twice.bmp")
    (images / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\n", "utf-8")
    (masks / "empty file.png").write_bytes(b"")
    mask.save(masks / "no image.png")
    return root


def film_folder(
    root: Path, dataset: SegmentationDataset, *, films: int = 12, frames: int = 4
) -> Path:
    """Write `frames` neighbouring frames of each of `films` scenes, and an index.csv that says so.

    Each frame is moved by a pixel and two per cent darker than the one before. The scenes are the
    first images of `dataset`; the column `sequence` of index.csv names the film of every frame.
    """
    images, masks = _pair_folders(root)
    rows = []
    for scene in range(min(films, len(dataset))):
        picture, mask = (np.asarray(one) for one in _pictures(dataset, scene))
        for k in range(frames):
            name = f"film {scene:02d} frame {k}"
            darker = (np.roll(picture, k, axis=1) * (1 - 0.02 * k)).round().astype(np.uint8)
            Image.fromarray(darker).save(images / f"{name}.png")
            Image.fromarray(np.roll(mask, k, axis=1)).save(masks / f"{name}.png")
            rows.append({"stem": name, "sequence": f"film {scene:02d}"})
    pd.DataFrame(rows).to_csv(root / "index.csv", index=False)
    return root


def _pair_folders(root: Path) -> tuple[Path, Path]:
    folders = root / "images", root / "masks"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def _pictures(dataset: SegmentationDataset, index: int) -> tuple[Image.Image, Image.Image]:
    """Return an image as RGB and the foreground of its mask as 0/255."""
    image = dataset.image(index).permute(1, 2, 0).numpy()
    mask = (dataset.mask(index) > 0).numpy()
    return (
        Image.fromarray((image * 255).round().astype(np.uint8)),
        Image.fromarray(mask.astype(np.uint8) * 255),
    )
