"""The images of a study of many modalities: split, thinned, joined, unseen domains kept apart.

An unseen domain is a hospital, a scanner or a stain that training never meets. None of its images
is in the training or the validation part; all that are kept of it form a test set of their own.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib.data.dataset import SegmentationDataset
from lib.data.errors import DataError
from lib.data.layouts import LAYOUTS, find_entries
from lib.data.mixture import MixtureDataset
from lib.data.open import open_dataset
from lib.data.pair_folder import has_pair, split_of
from lib.data.pairing import files_below
from lib.data.reading import SUFFIXES
from lib.data.splits import PARTS, Split, load_split, make_split, save_split
from lib.data.synthetic import MODALITIES
from lib.evaluation.records import slug

ALL = ("*",)
SHARES = {"val": 0.1, "test": 0.2}  # of a data set whose authors made no split


@dataclass(frozen=True)
class Source:
    """A data set of one modality.

    unseen: names of its domains (see `SegmentationDataset.domains`) that training never meets, or
        `ALL` for the whole data set. One modality may have several sources.
    """

    modality: str
    dataset: SegmentationDataset
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """At most so many images: of each source in train and val, of each test set in test."""

    train: int = 100
    val: int = 20
    test: int = 50


@dataclass(frozen=True)
class TestSet:
    """Images that are scored together.

    domain: its name, "" where the data set names none. seen: whether training met it.
    indices: places in the study's mixture. sha256: of the split that they are of.
    validation: they are the validation images, as for choosing steps and rates.
    """

    __test__ = False  # no test class, whatever pytest makes of the name

    modality: str
    domain: str
    seen: bool
    indices: tuple[int, ...]
    sha256: str
    validation: bool = False

    @property
    def title(self) -> str:
        """Such as "xray, seen" or "xray, unseen Montgomery"; the data set's name in records."""
        state = "seen" if self.seen else "unseen"
        title = f"{self.modality}, {state} {self.domain}".rstrip()
        return f"{title}, validation" if self.validation else title


@dataclass(frozen=True)
class StudyData:
    """All images of the sources as one mixture, and the places in it of each part."""

    sources: tuple[Source, ...]
    mixture: MixtureDataset
    train: tuple[int, ...]
    val: tuple[int, ...]
    tests: tuple[TestSet, ...]

    def only(self, modalities: Sequence[str]) -> "StudyData":
        """The same study of fewer modalities; images keep their parts."""
        sources = tuple(s for s in self.sources if s.modality in modalities)
        joined, names = _join(sources), self.mixture.names
        wanted = set(joined.names)

        def kept(indices):
            return tuple(joined.indices(names[i] for i in indices if names[i] in wanted))

        tests = [
            replace(t, indices=kept(t.indices)) for t in self.tests if t.modality in modalities
        ]
        return StudyData(sources, joined, kept(self.train), kept(self.val), tuple(tests))


def parse_source(text: str, *, size: int) -> Source:
    """Open ``NAME=DIR``, ``NAME=DIR:unseen=GROUP,GROUP`` or ``NAME=DIR:unseen`` (all of it).

    Masks of several classes are taken as one foreground.

    Raises:
        DataError: another form, or a folder that cannot be used.
    """
    found = re.fullmatch(r"(?P<name>[^=]+)=(?P<root>.+?)(?P<mark>:unseen(=(?P<groups>.+))?)?", text)
    if found is None:
        raise DataError(
            f"{text!r} describes no modality: give NAME=DIR or NAME=DIR:unseen=GROUP,GROUP, such "
            "as xray=data/lungs:unseen=Montgomery"
        )
    unseen = ()
    if found["mark"]:
        unseen = tuple(found["groups"].split(",")) if found["groups"] else ALL
    dataset = open_dataset("folder", root=found["root"], size=size, classes=2)
    return Source(found["name"], dataset, unseen)


def folder_sources(
    root: str | Path | None, *, size: int, unseen: Sequence[str] = ()
) -> list[Source]:
    """One modality a sub-folder of `root` that is a data set; else `root` as one.

    A sub-folder holds images/ and masks/ or has a published layout (see `lib.data.layouts`). A root
    that is such a data set itself and the folders train, val and test are one modality, named like
    `root`. Masks of several classes are taken as one foreground.

    Args:
        unseen: names of domains that training never meets, in whichever modality they are.

    Raises:
        DataError: no root, a folder that cannot be used, or no image of such a domain.
    """
    if root is None:
        raise DataError("data_root is empty: name the folder that holds the modalities")
    root = Path(root)
    folders, unread = _modality_folders(root)
    sources = []
    for folder in folders:
        dataset = open_dataset("folder", root=folder, size=size, classes=2)
        own = tuple(sorted(set(dataset.domains) & set(unseen)))
        name = root.resolve().name if folder == root else folder.name
        sources.append(Source(name, dataset, own))
    sources[0].dataset.notes.extend(
        f"not read: {path.name}/, which is no data set by itself" for path in unread
    )
    if missing := set(unseen) - {name for source in sources for name in source.unseen}:
        raise DataError(f"no image below {root} is of the domain {', '.join(sorted(missing))}")
    return sources


def _modality_folders(root: Path) -> tuple[list[Path], list[Path]]:
    """The folders that are one modality each, and those with pictures that are left out."""
    layout = find_entries(root)[0]
    if has_pair(root) or (layout != "pairs" and LAYOUTS[layout].locate([root])):
        return [root], []
    inner = [
        path
        for path in sorted(root.iterdir())
        if path.is_dir() and path.name[0] not in "._" and not split_of([path.name])
    ]
    layouts = {path: name for path in inner if (name := _layout_of(path))}
    if not layouts or (layout != "pairs" and set(layouts.values()) == {layout}):
        return [root], []
    return list(layouts), [p for p in inner if p not in layouts and _has_picture(p)]


def _has_picture(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in files_below(folder))


def _layout_of(folder: Path) -> str:
    """The layout of a data set in `folder`; empty where there is none."""
    try:
        layout, found = find_entries(folder)
    except DataError:
        return ""
    return layout if found.entries else ""


def synthetic_sources(*, size: int, count: int, modalities: Sequence[str] = MODALITIES):
    """Generated pictures: `count` of each modality's seen domain, a third as many unseen ones."""
    numbers = {"seen": count, "unseen": max(2, count // 3)}
    return [
        Source(
            modality,
            open_dataset("synthetic", modality=modality, domain=domain, size=size, count=number),
            ALL if domain == "unseen" else (),
        )
        for modality in modalities
        for domain, number in numbers.items()
    ]


def prepare(
    sources: Sequence[Source], *, limits: Limits, splits: Path | None = None, part: str = "test"
) -> StudyData:
    """Split every source and join them.

    Args:
        limits: images beyond them are left out, by a hash of their names.
        splits: folder of split files, made where missing; one that exists is taken as it is.
        part: "test", or "val" to score validation images in their place, as for choosing steps
            and rates. The unseen domains have no validation images and then stay out.

    Raises:
        DataError: an unseen domain that a data set does not have or a stored split has seen, too
            few images to split, a modality without training image, or two sources of one modality
            that nothing tells apart.
    """
    if part not in ("test", "val"):
        raise DataError(f"part must be test or val, not {part!r}")
    mixture = _join(sources)
    train, val, tests = [], [], []
    for source in sources:
        seen, unseen = _domains(source)

        def places(names, modality=source.modality):
            return tuple(mixture.indices(f"{modality}/{name}" for name in names))

        if seen:
            split = _seen_split(source, limits, splits)
            train += places(split.train)
            val += places(split.val)
            scored = places(getattr(split, part))
            name = "+".join(sorted(seen)) if unseen else ""  # named only where others are not
            own = TestSet(source.modality, name, True, scored, split.sha256, part == "val")
            tests.append((own, source.dataset.title))
        for domain in sorted(unseen) if part == "test" else ():
            pool = [n for n, d in _pairs(source) if d == domain]
            split = Split([], [], _thinned(pool, limits.test))
            name = "" if domain == "unseen" else domain
            scored = places(split.test)
            own = TestSet(source.modality, name, False, scored, split.sha256)
            tests.append((own, source.dataset.title))
    if not train:
        raise DataError("all domains are unseen: nothing is left to train on")
    _require_training(mixture, train)
    return StudyData(tuple(sources), mixture, tuple(train), tuple(val), _told_apart(tests))


def _require_training(mixture: MixtureDataset, train: Sequence[int]) -> None:
    """Refuse a modality that no training image is of: nothing of it would be trained."""
    trained = {mixture.modalities[mixture.modality[index]] for index in train}
    untrained = [name for name in mixture.modalities if name not in trained]
    if untrained:
        raise DataError(
            f"{untrained[0]}: no image is left to train on. Give unseen images the name of the "
            f"modality that they belong to ({', '.join(sorted(trained))}), so that training knows "
            "it"
        )


def _told_apart(tests: Sequence[tuple[TestSet, str]]) -> tuple[TestSet, ...]:
    """Test sets of one title get the title of their data set: records are found by it."""
    count = Counter(test.title for test, _ in tests)
    named = [
        replace(test, domain=f"{title} {test.domain}".rstrip()) if count[test.title] > 1 else test
        for test, title in tests
    ]
    if len({test.title for test in named}) < len(named):
        twice = sorted(t for t, n in Counter(test.title for test in named).items() if n > 1)
        raise DataError(f"two data sets would be called {twice[0]!r}: rename one of their folders")
    return tuple(named)


def _join(sources: Sequence[Source]) -> MixtureDataset:
    return MixtureDataset([(source.modality, source.dataset) for source in sources])


def _pairs(source: Source):
    """Name and domain of every image."""
    return zip(source.dataset.names, source.dataset.domains, strict=True)


def _domains(source: Source) -> tuple[set[str], set[str]]:
    """The seen and the unseen domains of a source."""
    found = set(source.dataset.domains)
    if source.unseen == ALL:
        return set(), found
    if unknown := sorted(set(source.unseen) - found):
        named = ", ".join(sorted(found - {""})) or "no domain: write :unseen for all of it"
        raise DataError(
            f"{source.modality}: {source.dataset.title} has no domain {', '.join(unknown)}, it has "
            f"{named}. Domains stand in column domain (or group) of its index.csv"
        )
    return found - set(source.unseen), set(source.unseen)


def _seen_split(source: Source, limits: Limits, splits: Path | None) -> Split:
    """The split of the seen images, from its file if there is one."""
    path = splits and splits / f"{slug(f'{source.modality} {source.dataset.title}')}.json"
    domain = dict(_pairs(source))
    if path and path.exists():
        split = load_split(path, source.dataset)
        names = [*split.train, *split.val, *split.test]
        if known := sorted({domain[name] for name in names} & set(source.unseen)):
            raise DataError(
                f"{path} counts the domain {', '.join(known)} among the seen, which shall be "
                "unseen: give another folder for the split files, or delete that one"
            )
        return split
    try:
        whole = make_split(source.dataset, **SHARES)
    except DataError as error:
        raise DataError(f"{source.modality}: {error}") from error
    seen = {name for name in domain if domain[name] not in source.unseen}
    group = dict(zip(source.dataset.names, source.dataset.groups, strict=True))
    met = {group[name] for name in domain.keys() - seen}  # a patient of both scanners is unseen
    parts = {}
    for part in PARTS:
        pool = [n for n in getattr(whole, part) if n in seen]
        pool = pool if part == "test" else [n for n in pool if group[n] not in met]
        parts[part] = _thinned(pool, getattr(limits, part))
    kept = set().union(*parts.values())
    groups = {name: cluster for name, cluster in whole.groups.items() if name in kept}
    without = f" without {', '.join(source.unseen)}" if source.unseen else ""
    made = f"{whole.made}{without}; at most {limits}"
    split = Split(**parts, groups=groups, made=made, dataset=source.dataset.title)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_split(split, path)
    return split


def _thinned(names: Sequence[str], count: int) -> list[str]:
    """The first `count` names by their hash, in the order given; the same on every machine."""
    kept = set(sorted(names, key=lambda n: hashlib.sha256(f"study/{n}".encode()).digest())[:count])
    return [name for name in names if name in kept]
