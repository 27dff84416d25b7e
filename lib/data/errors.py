"""The one error that this package raises, and a collector that lets it name all files at once."""

from collections.abc import Iterable
from pathlib import Path


class DataError(ValueError):
    """Data that cannot be used as it is; the message says what is wrong and what to do.

    `files` holds every offending file, also those that a long message leaves out.
    """

    def __init__(self, message: str, files: Iterable[Path] = ()):
        """Take the message and, where there are any, the offending files."""
        super().__init__(message)
        self.files = tuple(files)


def listing(items: Iterable[object], *, limit: int = 50) -> str:
    """Return `items` one a line, indented; after `limit` lines only the number left out is told."""
    lines = [f"  - {item}" for item in items]
    if len(lines) > limit:
        lines[limit:] = [f"  ... and {len(lines) - limit} more"]
    return "\n".join(lines)


class Problems:
    """Collects what is wrong with the files of a data set, to report all of it in one error."""

    def __init__(self, root: Path):
        """Collect for the data set in `root`; file names are shown relative to it."""
        self.root = root
        self._found: dict[str, list[tuple[Path, str]]] = {}

    def add(self, kind: str, path: Path, detail: str = "") -> None:
        """Note that `path` has a problem of `kind` (a heading with the remedy)."""
        self._found.setdefault(kind, []).append((path, detail))

    def raise_if_any(self) -> None:
        """Raise one DataError that names every file added so far, by kind."""
        if not self._found:
            return
        files = [path for found in self._found.values() for path, _ in found]
        parts = [f"{len(files)} files of {self.root} cannot be used."]
        for kind, found in self._found.items():
            lines = (
                self._shown(path) + (f": {detail}" if detail else "")
                for path, detail in sorted(found)
            )
            parts.append(f"{kind} ({len(found)}):\n{listing(lines)}")
        raise DataError("\n".join(parts), files)

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)
