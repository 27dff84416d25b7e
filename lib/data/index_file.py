"""The optional index.csv of a pair folder: splits, groups and domains of the images.

Columns, in any case: one that names the image (`stem`), and any of
  split     train, val or test (also training, validation, valid, testing);
  patient   (or subject, case, sequence, video): images that a split must keep together;
  domain    (or modality, site, scanner, centre): where an image comes from;
  group     is used both ways in practice. With at least 10 different values it keeps images
            together, as patient does; with fewer ("Shenzhen" and "Montgomery") no leak-free split
            could be made of them, and it is read as the domain.
Other columns are left alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lib.data.errors import DataError, listing
from lib.data.pairing import Found
from lib.data.reading import SUFFIXES

NAMES = ("stem", "name", "image", "image_id", "file", "filename", "id")
GROUPS = ("patient", "patient_id", "subject", "subject_id", "case", "case_id", "sequence", "video")
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


def apply_index(path: Path, found: Found) -> None:
    """Give the entries of `found` the splits, groups and domains that `path` states.

    Raises DataError for a table without image names, unknown splits, or images it does not list.
    """
    table = _read(path)
    names = _first(table, NAMES)
    if names is None:
        raise DataError(
            f"{path} has no column that names the images; give it one of {', '.join(NAMES)} "
            f"(it has {', '.join(table.columns)}), or rename the file if it is no index."
        )
    keys = [_without_suffix(name) for name in names]
    twice = sorted(key for key, times in Counter(keys).items() if times > 1)
    if twice:
        raise DataError(f"{path} lists these images more than once:\n{listing(twice)}", [path])
    split, group = table.get("split"), _first(table, GROUPS)
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
    rows = {key: row for row, key in enumerate(keys)}
    at = [rows.get(entry.name, rows.get(Path(entry.name).name)) for entry in found.entries]
    unlisted = [e.image for e, row in zip(found.entries, at, strict=True) if row is None]
    if unlisted:
        raise DataError(
            f"{path} does not list {len(unlisted)} of the images; add them, or rename the file if "
            f"it is no index:\n{listing(p.name for p in unlisted)}",
            unlisted,
        )
    splits = None if split is None else _known_splits(split, path)
    found.entries = [
        replace(
            entry,
            split=entry.split if splits is None else splits[row],
            group=entry.group if group is None else group[row],
            domain=entry.domain if domain is None else domain[row],
        )
        for entry, row in zip(found.entries, at, strict=True)
    ]


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no table of comma-separated values: {error}") from error
    return table.rename(columns=lambda column: column.strip().lower())


def _first(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series | None:
    return next((table[column] for column in columns if column in table), None)


def _without_suffix(name: str) -> str:
    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else name


def _known_splits(column: pd.Series, path: Path) -> list[str]:
    lower = [value.strip().lower() for value in column]
    unknown = sorted({value for value in lower if value and value not in SPLITS})
    if unknown:
        raise DataError(f"{path}: column split holds {unknown}; known are {', '.join(SPLITS)}.")
    return [SPLITS.get(value, "") for value in lower]
