"""What was unpacked, from which bytes: written beside the data, compared by later runs.

``<name>.source.json`` holds the SHA-256 of each archive. Where no published hash exists this is
trust on first use: the first download is believed, any later one must equal it.
``<name>.files.tsv`` holds size and path of each file, for ``--check``.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from data_scripts._disk import write_text
from data_scripts._errors import FetchError


@dataclass
class Record:
    """``archives``: file name -> {"sha256", "size", "from"}; ``files``: relative path -> bytes."""

    archives: dict[str, dict] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)


def _paths(root: Path, name: str) -> tuple[Path, Path]:
    return root / f"{name}.source.json", root / f"{name}.files.tsv"


def load_record(root: Path, name: str) -> Record:
    """The record of data set ``name`` below ``root``; an empty one when there is none.

    Raises FetchError for an unreadable record.
    """
    source, listing = _paths(root, name)
    record = Record()
    try:
        if source.exists():
            record.archives = json.loads(source.read_text(encoding="utf-8"))["archives"]
        if listing.exists():
            for line in listing.read_text(encoding="utf-8").splitlines():
                size, _, path = line.partition("\t")
                record.files[path] = int(size)
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(
            f"{source}: unreadable record ({error}); delete {source} and {listing}"
        ) from error
    return record


def save_record(root: Path, name: str, record: Record) -> None:
    """Write both files, each atomically."""
    source, listing = _paths(root, name)
    lines = (f"{size}\t{path}\n" for path, size in sorted(record.files.items()))
    write_text(listing, "".join(lines))
    write_text(source, json.dumps({"archives": record.archives}, indent=2) + "\n")


def compare_with_first(root: Path, name: str, filename: str, sha256: str) -> None:
    """Raise FetchError when an archive differs from the one that was downloaded first."""
    first = load_record(root, name).archives.get(filename, {}).get("sha256", sha256)
    if first != sha256:
        source, _ = _paths(root, name)
        raise FetchError(
            f"{filename}: SHA-256 is {sha256}, but the first download had {first} ({source}); if "
            f"the publisher has a new version that you trust, delete {source} and run again"
        )


def list_files(folder: Path) -> dict[str, int]:
    """Relative POSIX path -> size in bytes of every file below ``folder``."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
