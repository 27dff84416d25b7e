"""One JSON file a run: all that a table needs, and all that a reader needs to doubt it.

Tables and notebooks are made from these files alone. Every field stands on its own line, and
per-image scores are stored by column, so that files stay small and differences readable.
"""

import hashlib
import json
import math
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath

from lib.files import replacing

SCHEMA = 1
DECIMALS = 6  # of what was measured
LONGEST = 80  # bytes of a part of a file name
_IDENTITY = (  # what two records of one file name must share
    "method", "variant", "dataset", "dataset_fingerprint", "split_sha256", "labelled_fraction",
    "labelled_count", "labelled_seed", "seed", "parameters",
)  # fmt: skip


class RecordError(ValueError):
    """A record is not what it should be; the message names the file and the field."""


@dataclass(kw_only=True)
class Record:
    """One run. ``None`` means unknown or not applicable; tables then say so.

    ``scores`` and ``per_image`` have one entry a checkpoint: "last" and, where validation chose
    one, "best". Scores are those of `lib.evaluation.metrics.summarise`; a per-image row is one
    of `score_image` plus the image's "name".
    """

    method: str  # e.g. "supervised"
    dataset: str  # the data set's title
    dataset_fingerprint: str  # SHA-256 of what was read
    split_sha256: str  # of the split file
    labelled_fraction: float | None  # of the training images, in (0, 1]
    labelled_count: int
    seed: int  # of initialisation, batches and augmentation
    scores: dict[str, dict[str, float]]
    per_image: dict[str, list[dict]]
    labelled_seed: int = 0  # which labelled subset was drawn
    variant: str = ""  # tells runs of one method apart, e.g. "box-only"
    parameters: dict = field(default_factory=dict)
    commit: str | None = None
    packages: dict = field(default_factory=dict)
    hardware: dict = field(default_factory=dict)
    seconds: float | None = None
    peak_memory_mb: float | None = None
    peak_gpu_memory_mb: float | None = None
    history: dict = field(default_factory=dict)  # a summary: losses, validation scores
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    schema: int = SCHEMA

    @property
    def labelled_percent(self) -> float | None:
        """``labelled_fraction`` in percent, as tables and papers give it."""
        if self.labelled_fraction is None:
            return None
        return round(100 * self.labelled_fraction, 3)

    @property
    def label(self) -> str:
        """The method, with its variant in brackets."""
        return f"{self.method} ({self.variant})" if self.variant else self.method


_TEXT = ("method", "dataset", "dataset_fingerprint", "split_sha256", "variant", "created")
_INTEGERS = ("labelled_count", "seed", "labelled_seed", "schema")
_NUMBERS_OR_NONE = ("labelled_fraction", "seconds", "peak_memory_mb", "peak_gpu_memory_mb")
_MAPPINGS = ("scores", "per_image", "parameters", "packages", "hardware", "history")
_REQUIRED = {
    f.name for f in fields(Record) if f.default is MISSING and f.default_factory is MISSING
}


def file_name(record: Record) -> str:
    """``method[-variant]-dataset-labels-seedS.json``; a labelled subset other than 0 is named."""
    percent = record.labelled_percent
    labels = f"{record.labelled_count}labels" if percent is None else f"{percent:g}pct"
    subset = f"-subset{record.labelled_seed}" if record.labelled_seed else ""
    parts = [record.method, record.variant, record.dataset, labels]
    return "-".join(slug(part) for part in parts if part) + f"{subset}-seed{record.seed}.json"


def write_record(record: Record, directory: str | Path, *, replace: bool = False) -> Path:
    """Write the record under its `file_name`, whole or not at all; returns the path.

    A file of the same run (same data, split and parameters) is replaced; one of another run only
    with ``replace``, as in a folder for trying things out. Values that are not finite are stored
    as null.

    Raises:
        RecordError: a field has a wrong type or holds a path of this machine, or the file exists
            and belongs to another run.
    """
    directory = Path(directory)
    path = directory / file_name(record)
    document = _document(record)
    _validate(document, path)
    if path.exists() and not replace:
        _refuse_other_run(document, read_record(path), path)
    directory.mkdir(parents=True, exist_ok=True)
    lines = (f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in document.items())
    _write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return path


def read_record(path: str | Path) -> Record:
    """Read and check one file. Scores stored as null come back as NaN.

    Raises:
        RecordError: not JSON, another schema, or a field that is missing, unknown or of a wrong
            type. The message names file and field.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not a JSON document ({error})") from error
    _validate(document, path)
    document["scores"] = {key: _with_nan(value) for key, value in document["scores"].items()}
    document["per_image"] = {
        key: _rows(columns, f"{path}: field per_image.{key}")
        for key, columns in document["per_image"].items()
    }
    return Record(**document)


def find_record(run: Record, directory: str | Path) -> Record | None:
    """The stored record of the run that `run` describes, or None; its scores do not matter.

    Of the parameters those are compared that `run` names: a record may know more of them.

    Raises:
        RecordError: a file of that name is of another run, best found out before any training.
    """
    path = Path(directory) / file_name(run)
    if not path.exists():
        return None
    found = read_record(path)
    ours, theirs = (_storable({k: getattr(r, k) for k in _IDENTITY}) for r in (run, found))
    wanted, known = ours.pop("parameters"), theirs["parameters"]
    other = [key for key, value in ours.items() if theirs[key] != value]
    other += [key for key, value in wanted.items() if known.get(key) != value]
    if other:
        raise RecordError(
            f"{path}: exists and is a run of another {', '.join(other)}; choose another folder "
            "for the records (--output), or delete the file"
        )
    return found


def read_records(directory: str | Path, **filters: object) -> list[Record]:
    """All records of a directory, ordered by file name, that match the filters.

    A filter is a field's value or a list of values: ``read_records("results", seed=[0, 1],
    method="supervised")``.

    Raises:
        RecordError: no such directory, an unknown field, or a file that is no record.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise RecordError(f"{directory}: no such directory of records")
    names = {f.name for f in fields(Record)} | {"labelled_percent", "label"}
    if unknown := sorted(filters.keys() - names):
        raise RecordError(
            f"unknown field {unknown[0]!r} in the filter; a record has {sorted(names)}"
        )
    records = [read_record(path) for path in sorted(directory.glob("*.json"))]
    return [r for r in records if all(_matches(getattr(r, k), v) for k, v in filters.items())]


def _matches(value: object, wanted: object) -> bool:
    return value in wanted if isinstance(wanted, list | tuple | set | range) else value == wanted


def _document(record: Record) -> dict:
    document = {f.name: getattr(record, f.name) for f in fields(Record)} | {"schema": SCHEMA}
    document["per_image"] = {key: _columns(rows) for key, rows in record.per_image.items()}
    document = {"schema": document.pop("schema"), **document}
    return {
        name: _storable(value, None if name in _IDENTITY else DECIMALS)
        for name, value in document.items()
    }


def _columns(rows: Sequence[Mapping]) -> dict[str, list]:
    if any(row.keys() != rows[0].keys() for row in rows):
        raise RecordError("field per_image: the rows have different keys")
    return {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}


def _rows(columns: dict, where: str) -> list[dict]:
    if not isinstance(columns, dict) or not all(isinstance(c, list) for c in columns.values()):
        raise RecordError(f"{where}: expected lists of equal length, one a score")
    if len({len(column) for column in columns.values()}) > 1:
        raise RecordError(f"{where}: the columns have different lengths")
    return [
        _with_nan(dict(zip(columns, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]


def _with_nan(scores: dict) -> dict:
    return {key: math.nan if value is None else value for key, value in scores.items()}


def _storable(value: object, decimals: int | None = None) -> object:
    """JSON-safe copy: tuples become lists, NaN and infinity null, floats are rounded if asked."""
    if isinstance(value, Mapping):
        return {str(key): _storable(item, decimals) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item, decimals) for item in value]
    if hasattr(value, "item"):  # a numpy or torch scalar
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if decimals is None else round(value, decimals)
    if isinstance(value, str) and _is_machine_path(value):
        raise RecordError(
            f"{value!r} is a path of this machine: records are published, leave it out"
        )
    if value is None or isinstance(value, str | int):
        return value
    raise RecordError(f"{value!r:.60} cannot be stored as JSON: give numbers, text or lists")


def _is_machine_path(text: str) -> bool:
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def _validate(document: object, path: Path) -> None:
    if not isinstance(document, dict):
        raise RecordError(f"{path}: expected one JSON object")
    if document.get("schema") != SCHEMA:
        raise RecordError(
            f"{path}: field schema is {document.get('schema')!r}, this version reads {SCHEMA}; "
            "read it with the version of the project that wrote it (see its commit)"
        )
    names = {f.name for f in fields(Record)}
    for name in sorted(_REQUIRED - document.keys()):
        raise RecordError(f"{path}: field {name} is missing")
    for name in sorted(document.keys() - names):
        raise RecordError(f"{path}: field {name} is unknown")
    for name, value in document.items():
        if problem := _problem(name, value):
            raise RecordError(f"{path}: field {name} is {value!r:.60}, expected {problem}")


def _problem(name: str, value: object) -> str | None:
    """What was expected of the field, or None if all is well."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name in _TEXT and not isinstance(value, str):
        return "text"
    if name in ("method", "dataset") and not value:
        return "a name"
    if name in _INTEGERS and not whole:
        return "a whole number"
    if name in _NUMBERS_OR_NONE and not (value is None or number):
        return "a number or null"
    if name == "labelled_fraction" and number and not 0 < value <= 1:
        return "a fraction in (0, 1]"
    if name in _MAPPINGS and not isinstance(value, dict):
        return "an object"
    if name == "scores" and not (value and all(isinstance(v, dict) for v in value.values())):
        return 'an object of objects, such as {"last": {"dice": 0.8}}'
    if name == "scores" and any(
        isinstance(score, str | list | dict) for part in value.values() for score in part.values()
    ):
        return "numbers in each part"
    if name == "commit" and not (value is None or isinstance(value, str)):
        return "text or null"
    return None


def _refuse_other_run(new: dict, old: Record, path: Path) -> None:
    stored = _storable(asdict(old))
    for name in _IDENTITY:
        if stored[name] != new[name]:
            raise RecordError(
                f"{path}: exists and is a run of another {name}; set variant to tell the two "
                "apart, or delete the file"
            )


def _write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, also after a power failure."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def slug(text: str) -> str:
    """A part of a file name from a name in any script; RecordError if nothing is left of it."""
    # U-Net and U-Net++ are two networks and need two files.
    spelt = unicodedata.normalize("NFC", text).lower().replace("+", " plus ")
    slug = re.sub(r"(?:[^\w.]|_)+", "_", spelt).strip("_.")  # letters of any script
    if not slug:
        raise RecordError(f"{text!r} gives no file name: use letters or digits")
    if len(slug.encode()) > LONGEST:
        slug = f"{slug[: LONGEST // 4]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return slug
