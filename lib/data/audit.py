"""What is in a data set: counts, sizes, foreground, empty masks, duplicates, leaks, a look at it.

From the command line: `python -m lib.data.audit DIR [--layout NAME] [--output DIR]`.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from lib.data.dataset import SegmentationDataset
from lib.data.duplicates import find_duplicates
from lib.data.errors import DataError
from lib.data.layouts import LAYOUTS
from lib.data.open import open_dataset
from lib.data.splits import PARTS, Split, load_split

MOSTLY = 0.65  # of the picture: objects and organs rarely cover as much in half of the images
_COLUMNS = ["name", "part", "group", "domain", "mode", "width", "height", "foreground", "classes"]


@dataclass(frozen=True)
class AuditReport:
    """The findings: `table` has a column for the whole set and one for each of its parts.

    images: one row an image: name, part, group, domain, mode, width, height, classes in the mask,
        foreground (share of pixels in [0, 1]; all classes but 0).
    problems: sentences, the worst first; notes: what opening the data set decided.
    exact, near: pairs of names that are the same picture, or nearly.
    """

    title: str
    table: pd.DataFrame
    images: pd.DataFrame
    problems: list[str]
    notes: list[str]
    exact: list[tuple[str, str]]
    near: list[tuple[str, str]]

    def __str__(self) -> str:
        """Return the report as text."""
        lines = [self.title, "", self.table.to_markdown(disable_numparse=True), ""]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"PROBLEM: {problem}" for problem in self.problems] or ["No problem was found."]
        return "\n".join(lines)


def audit(
    dataset: SegmentationDataset, split: Split | None = None, *, progress: bool = False
) -> AuditReport:
    """Read every image and mask of `dataset` and report.

    Parts are those of `split` if it is given, else those of the data set's authors. A picture that
    cannot be decoded is a problem in the report, not an error.
    """
    part_of = _parts(dataset, split)
    rows, broken, readable = [], [], []
    for index in tqdm(range(len(dataset)), "audit", disable=not progress):
        try:
            rows.append(_row(dataset, index, part_of))
            readable.append(index)
        except DataError as error:
            broken.append(str(error))
    images = pd.DataFrame(rows, columns=_COLUMNS)
    exact, near = (
        [(dataset.names[i], dataset.names[j]) for i, j in pairs]
        for pairs in find_duplicates(dataset, readable)
    )
    sets = {"all": images}
    sets |= {part: images[images.part == part] for part in PARTS if (images.part == part).any()}
    table = pd.DataFrame({part: _summary(found, exact, near) for part, found in sets.items()})
    problems = broken + _problems(images, exact, near, dataset.classes)
    return AuditReport(dataset.title, table, images, problems, list(dataset.notes), exact, near)


def contact_sheet(
    dataset: SegmentationDataset,
    n: int = 24,
    *,
    columns: int = 6,
    indices: Sequence[int] | None = None,
) -> Figure:
    """Return a figure of `n` images spread over the data set, masks outlined, by name.

    indices: which images there are to choose from, by default all.
    """
    indices = range(len(dataset)) if indices is None else indices
    n = min(n, len(indices))
    chosen = [indices[i] for i in np.linspace(0, len(indices) - 1, n).round().astype(int)]
    rows = max(1, -(-n // columns))
    # Its margins are set below, which a notebook's default layout (`use_style`) would refuse.
    figure = Figure(figsize=(2.1 * columns, 2.3 * rows + 0.5), layout="none")
    grid = figure.subplots(rows, columns, squeeze=False)
    top = 1 - 0.7 / figure.get_figheight()  # inches for the title and the first row of names
    figure.subplots_adjust(0.01, 0.01, 0.99, top, wspace=0.04, hspace=0.12)
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, chosen, strict=False):
        sample = dataset[int(index)]
        axes.imshow(sample.image.permute(1, 2, 0).numpy())
        mask = sample.mask.numpy()
        for label in range(1, int(mask.max()) + 1):
            if (mask == label).any() and (mask != label).any():
                axes.contour(mask == label, [0.5], colors=[f"C{label}"], linewidths=1.2)
        name = sample.name if len(sample.name) <= 24 else f"...{sample.name[-22:]}"
        part = f" ({dataset.splits[index]})" if dataset.splits[index] else ""
        axes.set_title(name + part, fontsize=7)
    figure.suptitle(f"{dataset.title}: {n} of {len(dataset)} images, masks outlined", fontsize=10)
    return figure


def _parts(dataset: SegmentationDataset, split: Split | None) -> dict[str, str]:
    if split is None:
        return dict(zip(dataset.names, dataset.splits, strict=True))
    part_of = {name: part for part in PARTS for name in getattr(split, part)}
    dataset.indices(part_of)  # names all that the data set lacks
    return {name: part_of.get(name, "") for name in dataset.names}


def _row(dataset: SegmentationDataset, index: int, part_of: dict[str, str]) -> tuple:
    name, mask = dataset.names[index], dataset.mask(index).numpy()
    dataset.pixels(index)
    facts = (name, part_of[name], dataset.groups[index], dataset.domains[index])
    share = float((mask > 0).mean())
    return *facts, *dataset.stored(index), share, tuple(np.unique(mask).tolist())


def _summary(images: pd.DataFrame, exact: Sequence[tuple], near: Sequence[tuple]) -> pd.Series:
    names = set(images.name)
    low, middle, high = images.foreground.quantile([0.05, 0.5, 0.95])
    modes = Counter(images["mode"]).most_common()
    domains = Counter(images.domain).most_common()
    return pd.Series(
        {
            "images": str(len(images)),
            "groups": str(images.group.nunique()),
            "domains": ", ".join(f"{domain or '-'} {count}" for domain, count in domains[:6]),
            "width, px (min / median / max)": _spread(images.width),
            "height, px (min / median / max)": _spread(images.height),
            "modes": ", ".join(f"{mode} {count}" for mode, count in modes),
            "foreground, % (5th / 50th / 95th)": " / ".join(
                f"{100 * share:.1f}" for share in (low, middle, high)
            ),
            "empty masks": str((images.foreground == 0).sum()),
            "exact duplicates, pairs": str(sum(set(pair) <= names for pair in exact)),
            "near duplicates, pairs": str(sum(set(pair) <= names for pair in near)),
            "duplicates in other parts": str(
                sum(len(set(pair) & names) == 1 for pair in (*exact, *near))
            ),
        }
    )


def _spread(values: pd.Series) -> str:
    return f"{values.min()} / {values.median():.0f} / {values.max()}"


def _problems(
    images: pd.DataFrame, exact: Sequence[tuple], near: Sequence[tuple], classes: int
) -> list[str]:
    """Say what needs a decision: leaks first."""
    part_of = dict(zip(images.name, images.part, strict=True))
    group_of = dict(zip(images.name, images.group, strict=True))
    parts = images[images.part != ""].groupby("group").part.nunique()
    problems = [f"group {group} stands in several parts (leak)" for group in parts.index[parts > 1]]
    for what, pairs in (("exact", exact), ("near", near)):
        for a, b in pairs:
            if part_of[a] != part_of[b]:
                problems.append(
                    f"{what} duplicates in two parts (leak): {a} ({part_of[a]}), {b} ({part_of[b]})"
                )
        apart = [pair for pair in pairs if group_of[pair[0]] != group_of[pair[1]]]
        if apart:
            shown = "; ".join(f"{a} and {b}" for a, b in apart[:10])
            more = f"; and {len(apart) - 10} more" if len(apart) > 10 else ""
            problems.append(f"{len(apart)} {what} duplicates of different groups: {shown}{more}")
    full = images.name[images.foreground > 0.99].tolist()
    if full:
        problems.append(f"masks that cover the whole picture ({len(full)}): {', '.join(full[:10])}")
    if (middle := images.foreground.median()) > MOSTLY:
        problems.append(
            f"half of the masks cover more than {middle:.0%} of the picture: are they inverted? 0 "
            "must be the background"
        )
    if (empty := (images.foreground == 0).mean()) > 0.5:
        problems.append(
            f"{empty:.0%} of the masks are empty: a network that finds nothing scores a Dice of "
            f"{empty:.0%}, so read the miss rate beside it, or leave empty images out"
        )
    absent = set(range(1, classes)) - {label for found in images.classes for label in found}
    if absent:
        problems.append(f"no mask has the classes {sorted(absent)}")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 if there are problems, 2 if the data cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m lib.data.audit", description=__doc__)
    parser.add_argument("directory", help="folder of the data set")
    parser.add_argument("--layout", default="folder", choices=["folder", *LAYOUTS])
    parser.add_argument("--task", help="which masks: lung, infection; or the folder of the masks")
    parser.add_argument("--classes", type=int, help="background included; default: found out")
    parser.add_argument("--split", help="a split file, whose parts are then compared")
    parser.add_argument("--output", type=Path, help="folder for the tables and the contact sheet")
    given = parser.parse_args(arguments)
    if given.output and given.output.exists() and not given.output.is_dir():
        parser.error(f"--output {given.output}: there is a file of that name; name a folder")
    try:
        dataset = open_dataset(
            given.layout,
            root=given.directory,
            size=256,
            task=given.task,
            classes=given.classes,
        )
        split = load_split(given.split, dataset) if given.split else None
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    report = audit(dataset, split, progress=True)
    print(report)
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "audit.md").write_text(f"{report}\n", "utf-8")
        report.images.to_csv(given.output / "images.csv", index=False)
        readable = dataset.indices(report.images.name)
        sheet = contact_sheet(dataset, indices=readable)
        sheet.savefig(given.output / "contact_sheet.png", dpi=150)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
