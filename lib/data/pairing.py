"""Finding which mask belongs to which image in folders of files, by their names."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lib.data.errors import DataError, Problems
from lib.data.reading import SUFFIXES

NO_MASK = "Images without a mask: add the mask, or take the image away"
NO_IMAGE = "Masks without an image: add the image, or take the mask away"
TWO_IMAGES = "Several images of one name: keep one of them"
TWO_MASKS = "Several masks for one image: keep one of them"

# What people append to a mask's name, and to the image's beside it.
_MASK_ENDINGS = re.compile(
    r"[ _-]+(masks?|segmentations?|seg|gt|ground_?truth|labels?|anno(tations?)?|lesion|1st_manual|"
    r"manual1?)$",
    re.IGNORECASE,
)
_SYSTEM = ("Thumbs.db", "desktop.ini")
_IMAGE_ENDINGS = re.compile(r"[ _-]+(images?|img|training|test)$", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One image of a data set and the files of its mask (several are united, none is empty)."""

    name: str
    image: Path
    masks: tuple[Path, ...]
    group: str = ""
    domain: str = ""
    split: str = ""


@dataclass
class Found:
    """What a layout found under a directory; problems are raised together, later."""

    problems: Problems
    entries: list[Entry] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)  # foreign files
    notes: list[str] = field(default_factory=list)  # what a user should know


def natural_key(text: str) -> list:
    """Sort key that puts "image 2" before "image 10"."""
    parts = re.split(r"(\d+)", text.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts] + [(-1, text)]


def files_below(directory: Path) -> list[Path]:
    """Return all files below `directory` in natural order, without hidden and system files.

    Links to folders are followed, unless what they lead to is read already.
    """
    found, entered = [], {os.path.realpath(directory)}
    for folder, inner, files in os.walk(directory, followlinks=True):
        own = [name for name in inner if name[0] != "." and name != "__MACOSX"]
        inner.clear()
        # Folders before links, so that a link beside its target is the one left out.
        for name in sorted(own, key=lambda name: (os.path.islink(f"{folder}/{name}"), name)):
            place = os.path.realpath(f"{folder}/{name}")
            if place not in entered:
                entered.add(place)
                inner.append(name)
        # Broken links are kept: they are reported later.
        found += [Path(folder, name) for name in files if name[0] != "." and name not in _SYSTEM]
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def folders_below(root: Path, depth: int = 3) -> list[Path]:
    """Return `root` and the folders down to `depth`, nearest first.

    Of a crowd of more than 50 folders (one an image) only the first is entered.
    """
    level, found = [root], [root]
    for _ in range(depth):
        below = []
        for folder in level:
            inner = sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")
            below += inner if len(inner) <= 50 else inner[:1]
        found += below
        level = below
    return found


def pictures_below(directory: Path, found: Found, *, may_lack: bool = False) -> list[Path]:
    """Return the pictures below `directory`; other files are noted in `found.ignored`.

    Raises DataError when there are none, unless they `may_lack`.
    """
    files = files_below(directory)
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    found.ignored += [path for path in files if path.suffix.lower() not in SUFFIXES]
    if not pictures and not may_lack:
        kinds = sorted({path.suffix or path.name for path in files})
        raise DataError(
            f"{directory} holds no pictures, {f'only {kinds}' if kinds else 'it is empty'}. "
            f"Readable are {', '.join(sorted(SUFFIXES))}: convert the files to PNG."
        )
    return pictures


def name_below(path: Path, directory: Path) -> str:
    """Return the path below `directory` without its ending, in one Unicode form."""
    name = path.relative_to(directory).with_suffix("").as_posix()
    return unicodedata.normalize("NFC", name)


def by_key(paths: Iterable[Path], key: Callable[[Path], str | None]) -> dict[str, list[Path]]:
    """Gather paths under their key; those of key None are left out."""
    gathered: dict[str, list[Path]] = {}
    for path in paths:
        if (found := key(path)) is not None:
            gathered.setdefault(found, []).append(path)
    return gathered


def match(
    images: dict[str, list[Path]],
    masks: dict[str, list[Path]],
    found: Found,
    *,
    unite: bool = False,
    may_lack: bool = False,
) -> list[tuple[str, Path, tuple[Path, ...]]]:
    """Return (name, image, masks) for each name, and note in `found` what does not pair up.

    unite: several masks of one name are parts of one; else they are refused as candidates.
    may_lack: an image without a mask file has an empty mask; else it is refused.
    """
    pairs = []
    for name in sorted(images, key=natural_key):
        parts = masks.get(name, [])
        if len(images[name]) > 1:
            for path in images[name]:
                found.problems.add(TWO_IMAGES, path)
        elif not parts and not may_lack:
            found.problems.add(NO_MASK, images[name][0])
        elif len(parts) > 1 and not unite:
            for path in parts:
                found.problems.add(TWO_MASKS, path, f"for {images[name][0].name}")
        else:
            pairs.append((name, images[name][0], tuple(parts)))
    for name, paths in masks.items():
        if name not in images:
            for path in paths:
                found.problems.add(NO_IMAGE, path)
    return pairs


def pair_by_name(
    image_root: Path, mask_root: Path, found: Found
) -> list[tuple[str, Path, tuple[Path, ...]]]:
    """Pair pictures of the same relative path, whatever their type.

    The mask's name may end in _mask, _segmentation, _manual1 and the like; an equal name wins.
    """
    images = by_key(pictures_below(image_root, found), lambda path: name_below(path, image_root))
    bare = {_IMAGE_ENDINGS.sub("", name): name for name in images}

    def image_of(path: Path) -> str:
        name = name_below(path, mask_root)
        short = _MASK_ENDINGS.sub("", name)
        for candidate in (name, short, bare.get(short), bare.get(name)):
            if candidate in images:
                return candidate
        return name

    return match(images, by_key(pictures_below(mask_root, found), image_of), found)
