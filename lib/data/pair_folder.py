"""The folder of pairs: pictures in images/, masks of the same names in masks/.

Also for a root with such folders in it, at any place (train/images, train/masks, test/images, ...;
one folder a case), and for folders within images/ that masks/ repeats. A folder called train, val
or test states the split, and so does an index.csv beside images/, which may also state groups and
domains.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from os.path import commonpath
from pathlib import Path

from lib.data.errors import DataError
from lib.data.index_file import SPLITS
from lib.data.pairing import Entry, Found, pair_by_name

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "original", "originals")
# What was drawn by hand comes before mask/, where data sets of the retina keep the field of view.
MASK_FOLDERS = (
    "1st_manual", "manual1", "manual", "masks", "mask", "labels", "label", "annotations",
    "ground_truth", "ground truth", "groundtruth", "gt", "segmentations", "segmentation",
)  # fmt: skip
DEPTH = 4  # how far below the root pairs are looked for
FIELD_OF_VIEW = re.compile(r"\d+_(training|test)_mask")  # DRIVE's, which show no vessel
# Of trainset, TestingData, val_images and TestDataset, not of valve, testis or trainee.
_SPLIT_WORD = re.compile(
    r"(train|val|test)(?:ing|id|idation)?[ _-]?(?:data)?[ _-]?(?:sets?|images?|data|split)?",
    re.IGNORECASE,
)
_CAMEL_SPLIT = re.compile(r"([Tt]rain|[Vv]al|[Tt]est)(?=[A-Z])")


def _inner(folder: Path) -> dict[str, Path]:
    return {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}


def _inside(folder: Path, names: Sequence[str]) -> Path | None:
    inner = _inner(folder)
    return next((inner[name] for name in names if name in inner), None)


def has_pair(folder: Path) -> bool:
    """Tell whether `folder` holds a folder of images and one of masks."""
    return bool(_inside(folder, IMAGE_FOLDERS) and _inside(folder, MASK_FOLDERS))


def locate_pairs(folders: Sequence[Path]) -> Path | None:
    """Return the folder that holds all pairs below the first of `folders`, the root."""
    parts = list(pair_parts(folders[0]))
    return Path(commonpath(parts)) if parts else None


def pair_parts(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yield `folder` and those below it that have a pair, in order."""
    pair = has_pair(folder)
    if pair:
        yield folder
    if not depth:
        return
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        own = pair and inner.name.lower() in (*IMAGE_FOLDERS, *MASK_FOLDERS)
        if not own and inner.name[0] not in "._":
            yield from pair_parts(inner, depth - 1)


def find_pairs(base: Path, found: Found, task: str | None) -> None:
    """Pair by name; `task` names the folder of masks where there are several (masks, labels)."""
    for part in pair_parts(base):
        images = _inside(part, IMAGE_FOLDERS)
        masks = _inside(part, (task.lower(),) if task else MASK_FOLDERS)
        if masks is None:
            inner = sorted(path.name for path in part.iterdir() if path.is_dir())
            raise DataError(f"{part} has no folder {task!r} of masks; it has {', '.join(inner)}.")
        _name_other_masks(part, masks, found, task)
        prefix = "" if part == base else f"{part.relative_to(base).as_posix()}/"
        for name, image, files in pair_by_name(images, masks, found):
            if any(FIELD_OF_VIEW.fullmatch(path.stem) for path in files):
                raise DataError(
                    f"{masks} holds fields of view ({files[0].name}), not what is to be "
                    "segmented: put the drawn masks into a folder 1st_manual beside it.",
                    list(files),
                )
            split = split_of((prefix + name).split("/")[:-1])
            found.entries.append(Entry(prefix + name, image, files, split=split))
    _note_folders(found)


def split_of(folders: Sequence[str]) -> str:
    """The split that a path states, its last folder first: "train" of Train or TrainDataset."""
    for folder in reversed(folders):
        word = _SPLIT_WORD.fullmatch(folder) or _CAMEL_SPLIT.match(folder)
        if split := SPLITS.get(word[1].lower() if word else folder.lower()):
            return split
    return ""


def _name_other_masks(part: Path, masks: Path, found: Found, task: str | None) -> None:
    others = [p.name for name, p in _inner(part).items() if name in MASK_FOLDERS and p != masks]
    if others and not task:
        found.notes.append(
            f"{part.name}: masks taken from {masks.name}; also there: {', '.join(sorted(others))} "
            "(task names the folder; in a notebook: dataset 'folder/NAME')"
        )


def _note_folders(found: Found) -> None:
    """A note where several images share a folder of a name that states no split."""
    folders = Counter(e.name.rpartition("/")[0] for e in found.entries if not e.split)
    folders.pop("", None)
    if len(folders) > 1 and max(folders.values()) > 1:
        found.notes.append(
            f"images lie in {len(folders)} folders; if each is a patient or a video, say so in a "
            "column patient of index.csv, or images of one may stand in several parts of a split"
        )
