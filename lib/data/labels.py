"""What the stored values of masks mean: a threshold between two classes, or a table of classes.

Masks come as 0/1, as 0/255, blurred by JPEG or by resizing, as class numbers, as arbitrary grey
levels or as colours. One file alone cannot tell these apart, so a whole data set is counted first.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.data.errors import DataError, listing
from lib.data.reading import COLOUR, MaskPixels, brightness

MAX_DETECTED = 32  # more distinct values than this are no label map, unless `classes` says so
_REMEDY = (
    "Save masks without loss (PNG) as class numbers 0, 1, 2, ... with 0 for the background, or "
    "pass classes=2 (in a notebook: dataset 'folder/any') to take them as one foreground."
)


@dataclass(frozen=True)
class FileValues:
    """How often each stored value occurs in one mask file."""

    path: Path
    counts: dict[int, int]
    lossy: bool
    deep: bool


@dataclass(frozen=True)
class LabelRule:
    """Turns stored values into classes, by a table of value -> class or, if None, a threshold."""

    classes: int = 2
    table: dict[int, int] | None = None

    def apply(self, pixels: MaskPixels, path: Path) -> np.ndarray:
        """Return the classes, H x W uint8; DataError if `path` holds a value the table lacks."""
        if self.table is None:
            return binarise(pixels)
        known = np.array(sorted(self.table))
        position = np.searchsorted(known, pixels.values).clip(max=len(known) - 1)
        if (known[position] != pixels.values).any():
            strange = sorted(set(np.unique(pixels.values).tolist()) - set(self.table))
            raise DataError(
                f"{path} holds the values {strange[:8]}, which are none of its {self.classes} "
                f"classes {sorted(self.table)[:40]}: correct the mask, or open the data set again "
                f"if the file has changed since.",
                [path],
            )
        return np.array([self.table[value] for value in known], np.uint8)[position]

    def has_foreground(self, file: FileValues) -> bool:
        """Tell whether a mask with these values has a pixel of a class above 0."""
        if self.table is not None:
            return any(self.table.get(value) for value in file.counts)
        values = np.array(list(file.counts))
        return bool(binarise(MaskPixels(values, file.lossy, file.deep)).any())

    def __str__(self) -> str:
        """Say the rule in one line."""
        if self.table is None:
            return "binary masks, foreground from half of the full scale (128 of 255)"
        shown = [f"{shown_value(value)} -> {label}" for value, label in self.table.items()]
        if len(shown) > 12:
            shown[6:-2] = ["..."]
        return f"{self.classes} classes by stored value: {', '.join(shown)}"


def binarise(pixels: MaskPixels) -> np.ndarray:
    """Return H x W uint8, 1 where the mask is at least half of its full scale.

    The full scale is 255, or 65535 for deep masks that go beyond 255. A lossless mask of nothing
    but 0 and 1 is taken as it is. Never `> 0`, which would grow the soft edge of a JPEG.
    """
    values = pixels.values
    top = values.max(initial=0)
    if top <= 1 and not pixels.lossy:
        return values.astype(np.uint8)
    if pixels.deep and top > 255:
        return (values >= 32768).astype(np.uint8)
    return (brightness(values) >= 128).astype(np.uint8)


def count_values(pixels: MaskPixels, path: Path) -> FileValues:
    """Count the values of one mask."""
    values = pixels.values.ravel()
    if values.max(initial=0) < 1 << 16 and values.min(initial=0) >= 0:
        counts = np.bincount(values)
        found = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    else:
        unique, counts = np.unique(values, return_counts=True)
        found = dict(zip(unique.tolist(), counts.tolist(), strict=True))
    return FileValues(path, found, pixels.lossy, pixels.deep)


def find_rule(files: Sequence[FileValues], classes: int | None = None) -> LabelRule:
    """Return what the values of all masks of a data set mean together.

    `classes` forces the number of classes, background included. 0 (black) is always background;
    classes=2 takes all else as one foreground, but for soft edges, which are cut at half, and for
    255 beside class numbers, which marks pixels without a label.
    The order of the rules: JPEG: binary, unless flat areas of a middle grey show more classes. One
    value beside 0, or 0/1 files beside 0/255 files: binary. Foreground close to 255 but for soft
    edges: binary. Class numbers up to 31: as they are. Up to 32 other values: classes in the order
    of their values. Raises DataError, naming the files, otherwise.
    """
    total = Counter()
    for file in files:
        total.update(file.counts)
    values = {value for value in total if value}
    if classes == 2:
        return _one_foreground(files, total)
    if any(file.lossy for file in files):
        return _blurred(files, total, classes)
    if classes is None:
        if len(values) <= 1:
            return LabelRule(2, {0: 0} | dict.fromkeys(values, 1))
        if values == {1, 255} and not any({1, 255} <= file.counts.keys() for file in files):
            return LabelRule(2, {0: 0, 1: 1, 255: 1})
        if _soft_edged(total):
            return LabelRule()
    return _label_map(files, values, classes)


def shown_value(value: int) -> str:
    """Return a stored value for people: a number, or a colour as #RRGGBB."""
    return f"#{value - COLOUR:06X}" if value >= COLOUR else str(value)


def _one_foreground(files: Sequence[FileValues], total: Counter) -> LabelRule:
    """Classes forced to 2: every value counts as foreground; blurred greys are cut at half."""
    values = {value for value in total if value}
    blurred = any(file.lossy for file in files) or _soft_edged(total)
    full_scale = any(file.deep for file in files) and max(values, default=1) >= 32768
    if blurred or (full_scale and len(values) > 1):
        return LabelRule()
    void = _beside_void(values) and any({1, 255} <= file.counts.keys() for file in files)
    table = {0: 0} | dict.fromkeys(sorted(values), 1)
    return LabelRule(2, table | {255: 0} if void else table)


def _beside_void(values: set[int]) -> bool:
    """Tell whether the values are class numbers 1, 2, ... and 255."""
    return len(values) > 1 and values == {*range(1, len(values)), 255}


def _soft_edged(total: Counter) -> bool:
    """Tell whether nearly all that is not black is white: the greys are edges, or rounding."""
    values = {value for value in total if value}
    middle = {value for value in values if value < 239}
    white = _share_near_white(total)
    if len(middle) >= 3 and white >= 0.95:
        return True
    if len(values) > MAX_DETECTED and white >= 0.5 and not _has_middle_peak(total):
        return True
    rounded = [value for value in values if 247 <= value <= 255]
    return len(rounded) > 1 and all(value <= 8 or 247 <= value <= 255 for value in values)


def _blurred(files: Sequence[FileValues], total: Counter, classes: int | None) -> LabelRule:
    if classes is None and not _has_middle_peak(total):
        return LabelRule()
    grey = [file.path for file in files if file.lossy]
    raise DataError(
        f"{len(grey)} masks are JPEG, which blurs values, and hold more than black and white, so "
        f"their classes cannot be told. {_REMEDY}\n{listing(grey)}",
        grey,
    )


def _label_map(files: Sequence[FileValues], values: set[int], classes: int | None) -> LabelRule:
    highest = max(values, default=0)
    if highest < (classes or MAX_DETECTED):
        count = classes or max(2, highest + 1)
        return LabelRule(count, {value: value for value in range(count)})
    allowed = classes or MAX_DETECTED
    void = classes is None and _beside_void(values)
    if len(values) < allowed and not void:
        ordered = [0, *sorted(values)]
        return LabelRule(classes or len(ordered), {v: label for label, v in enumerate(ordered)})
    bad = [file.path for file in files if any(v >= (classes or 2) for v in file.counts)]
    what = (
        "255 beside class numbers, which often marks pixels without a label (background then)"
        if void
        else f"{len(values)} different values above 0"
    )
    wanted = f"{classes} classes were asked for" if classes else "classes cannot be told from that"
    raise DataError(
        f"The masks hold {what}; {wanted}. {_REMEDY} Masks with values of {classes or 2} or more "
        f"({len(bad)}):\n{listing(bad)}",
        bad,
    )


def _share_near_white(total: Counter) -> float:
    """Share of the pixels that are not near black which are near white."""
    bright = sum(count for value, count in total.items() if 239 <= value <= 255)
    other = sum(count for value, count in total.items() if 16 < value < 239 or value > 255)
    return bright / max(1, bright + other)


def _has_middle_peak(total: Counter) -> bool:
    """Tell whether the greys between black and white gather around a level, as a class would.

    Blur spreads them: of the 128 levels looked at, a window of nine then holds some 7 %.
    """
    middle = np.array([total[value] for value in range(64, 192)])
    visible = sum(count for value, count in total.items() if value > 16)
    densest = np.convolve(middle, np.ones(9, int)).max()
    return densest > 0.3 * middle.sum() and densest > 0.05 * visible
