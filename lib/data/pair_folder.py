"""The folder of pairs: pictures in images/, masks of the same names in masks/.

Also for a root with such folders in it (train/images, train/masks, test/images, ...), and for
folders within images/ that masks/ repeats. A folder called train, val or test states the split,
and so does an index.csv beside images/, which may also state groups and domains.
"""

from collections.abc import Sequence
from pathlib import Path

from lib.data.errors import DataError
from lib.data.index_file import SPLITS, apply_index
from lib.data.pairing import Entry, Found, pair_by_name

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "ground_truth", "gt")


def _inside(folder: Path, names: Sequence[str]) -> Path | None:
    inner = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((inner[name] for name in names if name in inner), None)


def has_pair(folder: Path) -> bool:
    """Tell whether `folder` holds a folder of images and one of masks."""
    return bool(_inside(folder, IMAGE_FOLDERS) and _inside(folder, MASK_FOLDERS))


def locate_pairs(folders: Sequence[Path]) -> Path | None:
    """Return the nearest folder with a pair in it, or with folders (train, test) that have one."""
    return next(filter(_own_folders, folders), None)


def _own_folders(folder: Path) -> list[Path]:
    if has_pair(folder):
        return [folder]
    return sorted(path for path in folder.iterdir() if path.is_dir() and has_pair(path))


def find_pairs(base: Path, found: Found, task: str | None) -> None:
    """Pair by name; `task` names the folder of masks where there are several (masks, labels)."""
    for part in _own_folders(base):
        images = _inside(part, IMAGE_FOLDERS)
        masks = _inside(part, (task.lower(),) if task else MASK_FOLDERS)
        if masks is None:
            inner = sorted(path.name for path in part.iterdir() if path.is_dir())
            raise DataError(f"{part} has no folder {task!r} of masks; it has {', '.join(inner)}.")
        prefix = "" if part == base else f"{part.name}/"
        for name, image, files in pair_by_name(images, masks, found):
            top = (prefix + name).split("/")[0] if "/" in prefix + name else ""
            split = SPLITS.get(top.lower(), "")
            found.entries.append(Entry(prefix + name, image, files, split=split))
    if (base / "index.csv").is_file():
        apply_index(base / "index.csv", found)
