"""The optional index.csv beside the images: their splits, groups and domains.

Columns, in any case and spacing: one that names the image (`stem`), and any of
  split     train, val or test (also training, validation, valid, testing); or set, subset or
            partition, if it holds nothing else;
  patient   (or subject, case, sequence, video): images that a split must keep together;
  domain    (or modality, site, scanner, centre): where an image comes from;
  group     is used both ways in practice. With at least 10 different values it keeps images
            together, as patient does; with fewer ("Shenzhen" and "Montgomery") no leak-free split
            could be made of them, and it is read as the domain.
Other columns are left alone. A note says what was used.
"""

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lib.data.errors import DataError, listing
from lib.data.pairing import Found
from lib.data.reading import SUFFIXES

NAMES = ("stem", "name", "image", "imageid", "imagename", "file", "filename", "id")
GROUPS = ("patient", "patientid", "subject", "subjectid", "case", "caseid", "sequence", "video")
PARTITIONS = ("set", "subset", "partition")
DOMAINS = ("domain", "modality", "site", "scanner", "centre", "center")
MIN_GROUPS = 10
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def apply_index(path: Path, found: Found, prefix: str = "") -> None:
    """Give the entries of `found` the splits, groups and domains that `path` states.

    `prefix`: where the data lie below `path`, such as "data/"; the table may name it or not.

    Raises DataError for a table without image names, unknown splits, or images it does not list.
    """
    table = _read(path)
    names = _first(table, NAMES)
    if names is None:
        raise DataError(
            f"{path} has no column that names the images; give it one of {', '.join(NAMES)} "
            f"(it has {', '.join(table.columns)}), or rename the file if it is no index."
        )
    keys = [_as_entry(name) for name in names]
    twice = sorted(key for key, times in Counter(keys).items() if times > 1)
    if twice:
        raise DataError(f"{path} lists these images more than once:\n{listing(twice)}", [path])
    split, group = _split_column(table), _first(table, GROUPS)
    domain, loose = _first(table, DOMAINS), table.get("group")
    if split is None and group is None and domain is None and loose is None:
        return
    if loose is not None:
        values = sorted(set(loose) - {""})
        if len(values) >= MIN_GROUPS:
            group = loose if group is None else group
            found.notes.append(
                f"{path.name}: the {len(values)} values of column group keep images together"
            )
        else:
            domain = loose if domain is None else domain
            found.notes.append(
                f"{path.name}: column group has only {len(values)} values "
                f"({', '.join(values)}), too few to split by: read as domains. If they are "
                f"patients, name the column patient."
            )
    used = {"split": split, "patient": group, "domain": domain}
    stated = table.attrs["stated"]  # the columns' names as the file spells them
    told = [f"{what} from {stated[c.name]}" for what, c in used.items() if c is not None]
    known = {names.name, *(column.name for column in used.values() if column is not None)}
    unused = [stated[column] for column in table if column not in known]
    found.notes.append(
        f"{path.name}: {', '.join(told)}" + (f"; not used: {', '.join(unused)}" * bool(unused))
    )
    at = _rows_of([entry.name for entry in found.entries], keys, path, prefix)
    unlisted = [e.image for e, row in zip(found.entries, at, strict=True) if row is None]
    if unlisted:
        raise DataError(
            f"{path} does not list {len(unlisted)} of the images (its first names are "
            f"{', '.join(keys[:3])}); add them, or rename the file if it is no index:\n"
            f"{listing(p.name for p in unlisted)}",
            unlisted,
        )
    splits = None if split is None else _known_splits(split, path)
    found.entries = [
        replace(
            entry,
            split=(splits and splits[row]) or entry.split,
            group=entry.group if group is None else group[row],
            domain=entry.domain if domain is None else domain[row],
        )
        for entry, row in zip(found.entries, at, strict=True)
    ]


def _read(path: Path) -> pd.DataFrame:
    """The table, its cells and its columns' names stripped, the names in plain small letters."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(row)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no table of comma-separated values: {error}") from error
    if not rows:
        raise DataError(f"{path} is no table of comma-separated values: it is empty")
    header = [re.sub(r"[^a-z0-9]", "", column.lower()) for column in rows[0]]
    twice = sorted(name for name, times in Counter(header).items() if name and times > 1)
    if twice:
        raise DataError(f"{path} has several columns called {', '.join(twice)}: keep one of each.")
    wide = [row for row in rows[1:] if any(row[len(header) :])]
    if wide:
        raise DataError(
            f"{path} is no table of comma-separated values: {len(wide)} rows have more cells than "
            f"the first line, such as {','.join(wide[0])}; put names that hold a comma in quotes."
        )
    blank = [""] * len(header)
    cells = [[cell.strip() for cell in (row + blank)[: len(header)]] for row in rows[1:]]
    table = pd.DataFrame(cells, columns=header, dtype=str)
    table.attrs["stated"] = dict(zip(header, map(str.strip, rows[0]), strict=True))
    return table


def _rows_of(
    names: Sequence[str], keys: Sequence[str], path: Path, prefix: str
) -> list[int | None]:
    """The row of each image: by its whole name, else by its last part, else by that of a row."""
    rows = {key: row for row, key in enumerate(keys)}
    tails = Counter(key.rpartition("/")[2] for key in keys)
    short = {key.rpartition("/")[2]: row for row, key in enumerate(keys)}
    at = []
    for name in names:
        tail = name.rpartition("/")[2]
        row = rows.get(prefix + name, rows.get(name, rows.get(tail)))
        at.append(short[tail] if row is None and tails[tail] == 1 else row)
    several = [row for row, times in Counter(at).items() if row is not None and times > 1]
    if several:
        both = [name for name, row in zip(names, at, strict=True) if row in several]
        raise DataError(
            f"{path} has one row for several images: name them there with their folders.\n"
            f"{listing(both)}",
            [path],
        )
    return at


def _first(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series | None:
    return next((table[column] for column in columns if column in table), None)


def _split_column(table: pd.DataFrame) -> pd.Series | None:
    if "split" in table:
        return table["split"]
    column = _first(table, PARTITIONS)
    stated = column is not None and set(column.str.lower()) <= {*SPLITS, ""}
    return column if stated else None


def _as_entry(name: str) -> str:
    """A name as data sets have it: forward slashes, no ending of a picture, one Unicode form."""
    path = Path(unicodedata.normalize("NFC", name).replace("\\", "/"))
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else path.as_posix()


def _known_splits(column: pd.Series, path: Path) -> list[str]:
    lower = [value.strip().lower() for value in column]
    unknown = sorted({value for value in lower if value and value not in SPLITS})
    if unknown:
        raise DataError(f"{path}: column split holds {unknown}; known are {', '.join(SPLITS)}.")
    return [SPLITS.get(value, "") for value in lower]
