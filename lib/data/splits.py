"""Who trains, who validates, who tests: made once from a seed, kept in a file with its SHA-256.

Groups (patients, sequences, near duplicates) are never torn apart. The order in which groups are
drawn is that of a hash of the seed and the group's name: it depends on no library's random numbers,
and a smaller labelled subset lies inside every larger one of the same seed.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.data.dataset import SegmentationDataset
from lib.data.duplicates import clusters, find_duplicates
from lib.data.errors import DataError, listing
from lib.files import replacing

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Names of the images to train on, to validate on and to test on.

    groups: name -> group, for images that belong to a group with others.
    made: how the split came about, for people.
    Raises DataError when a name stands in two parts or twice in one.
    """

    train: list[str]
    val: list[str]
    test: list[str]
    groups: Mapping[str, str] = field(default_factory=dict)
    made: str = ""
    dataset: str = ""

    def __post_init__(self):
        """Refuse names that stand more than once."""
        times = Counter([*self.train, *self.val, *self.test])
        twice = [name for name, count in times.items() if count > 1]
        if twice:
            raise DataError(f"These names stand more than once in the split:\n{listing(twice)}")

    @property
    def sha256(self) -> str:
        """SHA-256 of names and groups, the same on every machine; records carry it."""
        content = {part: getattr(self, part) for part in PARTS} | {"groups": dict(self.groups)}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def make_split(
    dataset: SegmentationDataset,
    *,
    val: float | int = 0.1,
    test: float | int = 0.2,
    seed: int = 0,
    own: bool = True,
    near_duplicates: bool = True,
) -> Split:
    """Split a data set by group; the same seed gives the same split anywhere.

    val, test: a share of all images (below 1) or a number of images; as groups stay whole, the
        nearest number that they allow. 0 for none.
    own: keep the parts that the data set's authors made, where it has any: its test set stays the
        test set, its validation set the validation set, and only what is missing is drawn from its
        training set (with images of no part, but for those of a group that is in a kept part:
        they join it).
    near_duplicates: images that look the same count as one group (decodes every image once).
    Raises DataError when there are too few groups.
    """
    groups = _groups(dataset, near_duplicates)
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    pool = []
    given = dict(zip(dataset.names, dataset.splits, strict=True))
    for name, part in given.items():
        (parts[part] if own and part in ("val", "test") else pool).append(name)
    kept = [part for part in ("test", "val") if parts[part]]
    for part in kept:  # images of no part whose group the authors named there
        there = {groups[name] for name in parts[part]}
        rest = [name for name in pool if not given[name] and groups[name] in there]
        parts[part] += rest
        pool = _without(pool, rest)
    for part, wanted in (("test", test), ("val", val)):
        if part not in kept:
            parts[part] = _draw(pool, groups, _number(wanted, len(dataset), part), f"{seed}/{part}")
            pool = _without(pool, parts[part])
    wanted = {"test": test, "val": val}
    empty = [part for part in ("test", "val") if wanted[part] and not parts[part]]
    if not pool or empty:
        raise DataError(
            f"{len(dataset)} images in {len(set(groups.values()))} groups do not suffice for "
            f"val={val} and test={test}: nothing is left for {', '.join(empty or ['train'])}. Ask "
            f"for less, or check the groups of the data set."
        )
    made = f"seed {seed}, val {val}, test {test}" + (
        f"; {' and '.join(kept)} as the data set's authors made it" if kept else ""
    )
    shared = {group for group, count in Counter(groups.values()).items() if count > 1}
    return Split(
        pool,
        parts["val"],
        parts["test"],
        {name: group for name, group in groups.items() if group in shared},
        made,
        dataset.title,
    )


def labelled_subset(
    split: Split, fraction: float | None = None, seed: int = 0, *, count: int | None = None
) -> list[str]:
    """Return the names of the training images that keep their labels, in the order of `train`.

    Give a `fraction` in (0, 1] or a `count` of images. Groups are kept whole, so the number is the
    nearest possible one, at least one group. Subsets of one seed are nested.
    """
    if (fraction is None) == (count is None):
        raise DataError("Give either fraction or count.")
    if fraction is not None and not 0 < fraction <= 1:
        raise DataError(f"fraction must be above 0 and at most 1 (0.25 for 25 %), not {fraction}")
    if count is not None and not 1 <= count <= len(split.train):
        raise DataError(f"count must be 1 to {len(split.train)} (all of train), not {count}")
    wanted = count or max(1, round(fraction * len(split.train)))
    return _draw(split.train, split.groups, wanted, f"{seed}/labelled")


def save_split(split: Split, path: str | Path) -> None:
    """Write the split as JSON with its SHA-256, whole or not at all."""
    content = {"dataset": split.dataset, "made": split.made, "sha256": split.sha256}
    content |= {part: getattr(split, part) for part in PARTS} | {"groups": dict(split.groups)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def load_split(path: str | Path, dataset: SegmentationDataset | None = None) -> Split:
    """Read a split file; raises DataError if its SHA-256 does not fit its content.

    With a `dataset`, it must have every name of the split.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        names = {part: [str(name) for name in content[part]] for part in PARTS}
        split = Split(
            **names, groups=content["groups"], made=content["made"], dataset=content["dataset"]
        )
        stated = content["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no split file that can be read: {error!r}") from error
    if split.sha256 != stated:
        raise DataError(
            f"{path} was changed after it was made: its content has the SHA-256 {split.sha256}, "
            f"it states {stated}. Restore the file, or make a new split with save_split."
        )
    if dataset is not None:
        dataset.indices([*split.train, *split.val, *split.test])
    return split


@dataclass(frozen=True)
class LeakReport:
    """What stands in more than one part of a split: groups, and pairs of (nearly) equal images."""

    groups: list[str]
    exact: list[tuple[str, str]]
    near: list[tuple[str, str]]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.groups or self.exact or self.near)

    def __str__(self) -> str:
        """Say it in one line, then the cases."""
        if self.clean:
            return "no leak: no group, exact or near duplicate stands in two parts"
        lines = [f"group {group}" for group in self.groups]
        lines += [f"exact duplicates: {a} = {b}" for a, b in self.exact]
        lines += [f"near duplicates: {a} ~ {b}" for a, b in self.near]
        leaks = "leak" if len(lines) == 1 else "leaks"
        return f"{len(lines)} {leaks} between parts:\n{listing(lines)}"


def check_leaks(dataset: SegmentationDataset, split: Split) -> LeakReport:
    """Look for groups and for exact and near duplicates across the parts of `split`.

    Decodes every image of the split once.
    """
    part_of = {name: part for part in PARTS for name in getattr(split, part)}
    indices = dataset.indices(part_of)
    parts: dict[str, set[str]] = {}
    for index in indices:
        parts.setdefault(dataset.groups[index], set()).add(part_of[dataset.names[index]])
    exact, near = (
        [
            (dataset.names[i], dataset.names[j])
            for i, j in pairs
            if part_of[dataset.names[i]] != part_of[dataset.names[j]]
        ]
        for pairs in find_duplicates(dataset, indices)
    )
    return LeakReport([group for group, where in parts.items() if len(where) > 1], exact, near)


def _groups(dataset: SegmentationDataset, near_duplicates: bool) -> dict[str, str]:
    """Return name -> group, groups that share a near duplicate made one (named by the first)."""
    if not near_duplicates:
        return dict(zip(dataset.names, dataset.groups, strict=True))
    first = {group: i for i, group in reversed(list(enumerate(dataset.groups)))}
    same_group = [(first[group], i) for i, group in enumerate(dataset.groups)]
    exact, near = find_duplicates(dataset)
    numbers = clusters(len(dataset), [*same_group, *exact, *near])
    name_of: dict[int, str] = {}
    for number, group in zip(numbers, dataset.groups, strict=True):
        name_of.setdefault(number, group)
    return {name: name_of[n] for name, n in zip(dataset.names, numbers, strict=True)}


def _draw(names: Sequence[str], groups: Mapping[str, str], wanted: int, key: str) -> list[str]:
    """Return the first groups, in the order of their hash, whose number of images is nearest."""
    if wanted == 0:
        return []
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(groups.get(name, name), []).append(name)
    drawn: list[str] = []
    for group in sorted(members, key=lambda g: hashlib.sha256(f"{key}/{g}".encode()).digest()):
        more = len(members[group])
        if drawn and abs(len(drawn) + more - wanted) >= abs(len(drawn) - wanted):
            break
        drawn += members[group]
    kept = set(drawn)
    return [name for name in names if name in kept]


def _without(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    taken = set(taken)
    return [name for name in names if name not in taken]


def _number(wanted: float, total: int, part: str) -> int:
    if wanted < 0 or (isinstance(wanted, float) and wanted >= 1) or wanted >= total:
        raise DataError(
            f"{part} must be a share below 1 or a number of images below {total}, not {wanted}"
        )
    return round(wanted * total) if isinstance(wanted, float) else wanted
