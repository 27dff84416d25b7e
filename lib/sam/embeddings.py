"""A cache on disk for what a frozen encoder computes: one file an embedding.

A frozen encoder gives the same embedding for the same image in every round of mining and in
every run, so it has to run once. Each entry is a safetensors file, named by the hash of its key:

* **atomic**: written beside its place and renamed into it, so that a reader, another process or
  a killed run never sees half a file; two processes that write the same key write the same;
* **checked**: a digest over key, type, shape and bytes finds truncated files, flipped bits and
  files of another key; such an entry is removed with a warning and counts as not there;
* **bounded**: when `max_bytes` would be passed, the entries used longest ago are removed; if they
  are of the same run it warns once, since a run that goes round more than fits computes it anew
  every time;
* **optional**: when it cannot write (disk full, no permission) it warns once and the work goes
  on without it.
"""

import contextlib
import hashlib
import os
import time
import uuid
import warnings
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lib.fingerprint import tensors_fingerprint

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
STALE_AFTER = 3600  # seconds until the unfinished file of a killed process is removed
SLACK = 8  # a process looks at the whole folder after writing 1/8 of max_bytes


class EmbeddingCache:
    """Embeddings on disk, read through memory mapping; any number of processes may share one.

    Args:
        directory: folder of the cache; made if it is not there.
        max_bytes: most bytes of all entries together. One process keeps to it exactly; each
            further process that writes at the same time may exceed it by an eighth until it
            looks again.
        dtype: type on disk. float32 returns exactly what was stored; bfloat16 and float16 halve
            the space and round.

    Raises:
        ValueError: `max_bytes` or `dtype` makes no sense.
        OSError: the folder cannot be made.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        max_bytes: int = 8 * 1024**3,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Open the cache; nothing is read yet."""
        if max_bytes < 1:
            raise ValueError(f"max_bytes={max_bytes} must be at least 1")
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype}: choose one of {', '.join(map(str, DTYPES))}")
        self.directory = Path(directory).expanduser()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.max_bytes = max_bytes
        self.dtype = dtype
        self._unchecked = 0  # bytes this process may write before it looks at the folder again
        self._lock = FileLock(self.directory / ".lock")
        self._written: set[Path] = set()
        self._warned = self._warned_full = False

    def get(self, key: str) -> Tensor | None:
        """Return the tensor stored under `key` (a view of the mapped file), or None.

        Writing into the tensor changes neither the file nor other readers.
        """
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                metadata, tensor = file.metadata() or {}, file.get_tensor("embedding")
        except FileNotFoundError:
            return None
        except SafetensorError as error:
            self._remove_damaged(path, str(error))
            return None
        except (OSError, RuntimeError) as error:  # no permission, too many open files, ...
            self._warn_once(f"cannot read {path.name} ({error})")
            return None
        if metadata.get("key") != key:
            self._remove_damaged(path, "it belongs to another key")
            return None
        if metadata.get("sha256") != tensors_fingerprint({key: tensor}):
            self._remove_damaged(path, "its content does not match its checksum")
            return None
        with contextlib.suppress(OSError):  # a cache that is read-only can still be read
            os.utime(path)  # the time of use decides what is removed first
        return tensor

    def put(self, key: str, embedding: Tensor) -> Tensor:
        """Store `embedding` under `key`; returns what `get` will return: it in the cache's type.

        A reader that goes on with the returned tensor gets the same numbers whether the
        embedding was computed just now or read back. If storing fails, nothing is lost but time.
        """
        stored = embedding.detach().to("cpu", self.dtype).contiguous()
        metadata = {"key": key, "sha256": tensors_fingerprint({key: stored})}
        content = save({"embedding": stored}, metadata)
        path = self._path(key)
        unfinished = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.tmp")
        try:
            if self._make_room(len(content)):
                path.parent.mkdir(exist_ok=True)
                unfinished.write_bytes(content)
                os.replace(unfinished, path)
                self._written.add(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            self._warn_once(f"cannot write ({error}); embeddings are computed anew where needed")
        return stored

    def __contains__(self, key: str) -> bool:
        """Tell whether there is an entry for `key`, without reading or checking it."""
        return self._path(key).is_file()

    def entries(self) -> list[tuple[Path, int]]:
        """Return the files and their sizes in bytes, the one used longest ago first."""
        found = []
        for path in self.directory.glob("??/*.safetensors"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process removed it
                continue
            found.append((stat.st_mtime_ns, path, stat.st_size))
        return [(path, size) for _, path, size in sorted(found)]

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            for path, _ in self.entries():
                path.unlink(missing_ok=True)
            self._unchecked = 0

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.directory / name[:2] / f"{name}.safetensors"

    def _make_room(self, size: int) -> bool:
        """Remove old entries until `size` bytes fit; False if they never will."""
        if size > self.max_bytes:
            self._warn_once(
                f"an entry of {size:,} bytes is larger than max_bytes={self.max_bytes:,}, "
                "so it is not stored"
            )
            return False
        if size > self._unchecked:
            with self._lock:
                self._remove_unfinished()
                entries = self.entries()
                total = sum(length for _, length in entries)
                allowance = max(size, self.max_bytes // SLACK)
                for path, length in entries:
                    if total + allowance <= self.max_bytes:
                        break
                    path.unlink(missing_ok=True)
                    total -= length
                    self._warn_of_own(path)
            self._unchecked = allowance
        self._unchecked -= size
        return True

    def _remove_unfinished(self) -> None:
        """Remove what killed processes left; what another process is writing now is young."""
        oldest = time.time() - STALE_AFTER
        for path in self.directory.glob("??/*.tmp"):
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except FileNotFoundError:  # its writer finished, or another process removed it
                continue

    def _remove_damaged(self, path: Path, reason: str) -> None:
        warnings.warn(
            f"cached embedding {path} is damaged ({reason}); it is computed anew", stacklevel=3
        )
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._warn_once(f"cannot remove a damaged entry ({error})")

    def _warn_of_own(self, removed: Path) -> None:
        """Warn once if this object wrote what was removed; older entries may go in silence."""
        if removed in self._written and not self._warned_full:
            warnings.warn(
                f"embedding cache {self.directory} is full at max_bytes={self.max_bytes:,}: what "
                "this run stored is removed and, where needed again, computed anew; a larger "
                "max_bytes is faster",
                stacklevel=4,
            )
            self._warned_full = True

    def _warn_once(self, message: str) -> None:
        if not self._warned:
            warnings.warn(f"embedding cache {self.directory}: {message}", stacklevel=4)
            self._warned = True


def room_for(count: int, image_size: int, *, least: int = 20 * 1024**3) -> int:
    """`max_bytes` for `count` embeddings of SAM (256 float32 a token), a quarter to spare.

    A cache that is too small throws out what is needed next.

    Args:
        count: embeddings that a run reads again: images times views times encoders.
        image_size: side of SAM's images in pixels; a token stands for 16 x 16 of them.
        least: bytes that are allowed in any case.
    """
    return max(least, count * (image_size // 16) ** 2 * 256 * 4 * 5 // 4)
