"""The partial file of a download, and the note that says which file on the server it belongs to."""

import json
from pathlib import Path

import requests

from data_scripts._disk import write_text


class Partial:
    """``<name>.part`` beside the final path, ``<name>.part.json`` with address and validator."""

    def __init__(self, path: Path, url: str) -> None:
        self.name = path.name
        self.file = path.with_name(path.name + ".part")
        self._note = path.with_name(path.name + ".part.json")
        self._url = url
        try:
            self._origin = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._origin = {}

    @property
    def offset(self) -> int:
        """Bytes on the disk."""
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def total(self) -> int | None:
        """Size of the whole file in bytes, as the server announced it; None when it did not."""
        return self._origin.get("total")

    @property
    def validator(self) -> str | None:
        """Strong ETag or date of the server's file, for If-Range; None from another address."""
        return self._origin.get("validator") if self._origin.get("url") == self._url else None

    def resumable_offset(self, known_hash: str | None) -> int:
        """Where to go on; 0 after dropping a piece that nothing could tie to the server's file.

        Without a validator a mixture of two versions would go unnoticed, unless a known hash is
        waiting at the end.
        """
        offset = self.offset
        too_long = self.total is not None and offset > self.total
        if offset and (too_long or not (self.validator or known_hash)):
            self.discard()
            return 0
        return offset

    def is_same_file(self, response: requests.Response, total: int | None) -> bool:
        """False when a 206 answer contradicts what was noted at the beginning."""
        if self.total is not None and total != self.total:
            return False
        return self.validator is None or _validator(response) in (None, self.validator)

    def begin(self, response: requests.Response, total: int | None) -> None:
        """Empty the file, and note the origin of what follows."""
        self._origin = {"url": self._url, "validator": _validator(response), "total": total}
        self.file.write_bytes(b"")
        write_text(self._note, json.dumps(self._origin))

    def discard(self) -> None:
        """Remove the piece and its note."""
        self.file.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._origin = {}


def _validator(response: requests.Response) -> str | None:
    """What If-Range may carry: a strong ETag, else the date of the last change."""
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    return response.headers.get("Last-Modified")
