"""A data set in a folder of pictures: your own pairs of images and masks, or a public layout."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from lib.data.dataset import SegmentationDataset
from lib.data.errors import DataError, Problems
from lib.data.hdf5 import inspect_slice, read_slice_image, read_slice_label
from lib.data.labels import FileValues, LabelRule, count_values, find_rule
from lib.data.layouts import LAYOUTS, find_entries
from lib.data.pairing import Entry, Found, natural_key
from lib.data.reading import (
    BROKEN,
    BrokenPicture,
    MaskPixels,
    Picture,
    inspect,
    read_image,
    read_mask,
    turned,
)

SHAPE = "Masks of another shape than their image: give them the image's size or aspect ratio"
PICTURE = (
    "Pictures where masks should be, with thousands of colours: put masks in their place, or pass "
    "classes=2 (in a notebook: dataset 'folder/any') if all that is not black is the object"
)
MOST_COLOURS = 4096
_HDF5 = ".h5"
_TOLERANCE = 0.02  # of the aspect ratio: what rounding to whole pixels does to small pictures
_THREADS = 8  # Pillow decodes without Python's lock, and files wait for the disk


class FolderDataset(SegmentationDataset):
    """Images and masks below `root`, checked when the data set is opened.

    Opening reads the header of every file and the end or checksum of it, and, where the meaning of
    mask values is not known from the layout, decodes all masks once. What is wrong with any file
    (truncated, empty, text, without partner, of two candidates, of a wrong shape) is raised as one
    DataError that names all of them. A picture damaged inside but whole at its end is found when
    it is first decoded, or by `lib.data.audit`.

    layout: "auto" or a name in `lib.data.layouts.LAYOUTS`.
    task: which masks, where there are several: "lung" or "infection" for covid_qu_ex, the name of
        the folder of masks for pairs (default: masks).
    classes: background included; None: known from the layout or told from the masks' values, see
        `lib.data.labels.find_rule`.
    size: side of the square that images and masks are squashed to; None: as stored.

    EXIF rotation is applied to image and mask, each by its own tag; a mask without a tag that fits
    only the unrotated image is turned with it. A mask of another size but the same aspect ratio is
    resized by nearest neighbour. `notes` says in sentences what was found and decided.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        layout: str = "auto",
        size: int | None = None,
        classes: int | None = None,
        task: str | None = None,
    ):
        """Open and check the data set; raises DataError."""
        self.root = Path(root)
        self.layout, found = find_entries(self.root, layout, task)
        facts = LAYOUTS[self.layout]
        entries = sorted(found.entries, key=lambda entry: natural_key(entry.name))
        self._entries = entries
        self._pictures = _inspect_all(entries, found.problems)
        _check_shapes(entries, self._pictures, found.problems)
        found.problems.raise_if_any()
        if not entries:
            raise DataError(f"{self.root} has the layout {self.layout!r} but no image with a mask.")
        if turned_alone := _turned_alone(entries, self._pictures):
            found.notes.append(
                f"turned by EXIF, with a mask that is not and whose shape does not tell whether it "
                f"should be: {turned_alone} of {len(entries)} images; look at some of them"
            )
        self._rule = _find_rule(entries, classes, facts.classes, found)
        super().__init__(
            names=[entry.name for entry in entries],
            groups=[entry.group or entry.name for entry in entries],
            domains=[entry.domain for entry in entries],
            splits=[entry.split for entry in entries],
            classes=self._rule.classes,
            size=size,
            title=(facts.title or self.root.resolve().name) + (f" ({task})" if task else ""),
            licence=facts.licence,
            origin=facts.origin,
        )
        self.notes = [f"layout: {self.layout}", f"masks: {self._rule}", *found.notes]
        if found.ignored:
            kinds = Counter(path.suffix or path.name for path in found.ignored)
            shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6))
            self.notes.append(f"foreign files ignored: {shown}")

    def stored(self, index: int) -> tuple[str, int, int]:
        """Return mode, width and height of image `index` as its file states them."""
        picture = self._pictures[self._entries[index].image]
        return picture.mode, picture.width, picture.height

    def _load_image(self, index: int) -> np.ndarray:
        path = self._entries[index].image
        return read_slice_image(path) if path.suffix == _HDF5 else read_image(path)

    def _load_mask(self, index: int) -> np.ndarray:
        entry = self._entries[index]
        image = self._pictures[entry.image]
        united = np.zeros((image.height, image.width), np.uint8)
        for path in entry.masks:
            mask = self._rule.apply(_read_values(path), path)
            if not _fits(self._pictures[path], image):
                mask = turned(mask, image.orientation)
            if mask.shape != united.shape:
                size = (image.width, image.height)
                mask = np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
            united = np.maximum(united, mask)
        return united

    def _fingerprint_parts(self) -> Iterator[str]:
        yield str(self._rule)
        for entry in self._entries:
            yield ",".join(str(path.stat().st_size) for path in (entry.image, *entry.masks))


def _files(entries: Iterable[Entry]) -> list[Path]:
    return list(dict.fromkeys(path for e in entries for path in (e.image, *e.masks)))


def _inspect_all(entries: Sequence[Entry], problems: Problems) -> dict[Path, Picture]:
    """Read the headers of all files; what is broken goes to `problems`."""

    def try_inspect(path: Path) -> Picture | BrokenPicture:
        try:
            return inspect_slice(path) if path.suffix == _HDF5 else inspect(path)
        except BrokenPicture as broken:
            return broken

    pictures = {}
    files = _files(entries)
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, result in zip(files, pool.map(try_inspect, files), strict=True):
            if isinstance(result, BrokenPicture):
                problems.add(result.kind, path, result.detail)
            else:
                pictures[path] = result
    return pictures


def _check_shapes(
    entries: Sequence[Entry], pictures: dict[Path, Picture], problems: Problems
) -> None:
    for entry in entries:
        image = pictures.get(entry.image)
        for path in entry.masks:
            mask = pictures.get(path)
            if image is None or mask is None or _fits(mask, image):
                continue
            if image.orientation < 5 or not _fits(_on_its_side(mask), image):
                detail = f"{mask.width}x{mask.height}, image {image.width}x{image.height}"
                problems.add(SHAPE, path, detail)


def _turned_alone(entries: Sequence[Entry], pictures: dict[Path, Picture]) -> int:
    """How many images have an EXIF rotation that a mask lacks which fits them both ways."""
    return sum(_may_be_turned(pictures[e.image], [pictures[m] for m in e.masks]) for e in entries)


def _may_be_turned(image: Picture, masks: Sequence[Picture]) -> bool:
    if image.orientation in (0, 1):
        return False
    plain = [mask for mask in masks if mask.orientation in (0, 1) and _fits(mask, image)]
    on_its_side = image.orientation >= 5  # then only a square mask fits both ways
    return any(not on_its_side or _fits(_on_its_side(mask), image) for mask in plain)


def _fits(mask: Picture, image: Picture) -> bool:
    ratio = mask.width * image.height / (mask.height * image.width)
    return abs(ratio - 1) <= _TOLERANCE


def _on_its_side(picture: Picture) -> Picture:
    return replace(picture, width=picture.height, height=picture.width)


def _find_rule(
    entries: Sequence[Entry], asked: int | None, known: int | None, found: Found
) -> LabelRule:
    """Return how mask values become classes: as the layout knows, or from all masks' values."""
    if known is None:
        counted = _count_all(entries, found.problems.root, asked)
        rule = find_rule(counted, asked)
        if not any(rule.has_foreground(file) for file in counted):
            found.notes.append("no mask holds any foreground by this rule: look at the files")
        return rule
    if asked not in (None, 2, known):
        raise DataError(f"classes={asked}, but this layout has {known} (or 2: any structure).")
    if known == 2:
        return LabelRule()
    labels = range(known)
    return LabelRule(asked or known, {i: min(i, 1) if asked == 2 else i for i in labels})


def _count_all(entries: Sequence[Entry], root: Path, asked: int | None) -> list[FileValues]:
    def try_count(path: Path) -> FileValues | str:
        try:
            values = count_values(read_mask(path), path)
        except DataError:
            return BROKEN
        # Hundreds of such files would fill the memory before their values could be looked at.
        crowded = len(values.counts) > MOST_COLOURS and not values.deep
        return PICTURE if crowded and asked is None else values

    files = list(dict.fromkeys(path for entry in entries for path in entry.masks))
    with ThreadPoolExecutor(_THREADS) as pool:
        counted = list(pool.map(try_count, files))
    problems = Problems(root)
    for path, result in zip(files, counted, strict=True):
        if isinstance(result, str):
            problems.add(result, path)
    problems.raise_if_any()
    return counted


def _read_values(path: Path) -> MaskPixels:
    if path.suffix == _HDF5:
        return MaskPixels(read_slice_label(path).astype(np.int32))
    return read_mask(path)
