"""Disk matters: room before it is needed, writes that survive a crash, one process at a time."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from data_scripts._errors import FetchError

# Left free on purpose: a completely full disk hurts more than a refused download.
RESERVE = 200 * 2**20


def human(count: int) -> str:
    """Bytes as a short text in decimal units, as download pages write them: ``46.2 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise FetchError when the disk of ``folder`` cannot take ``needed`` bytes and a reserve."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed + RESERVE:
        raise FetchError(
            f"{folder}: {purpose} needs {human(needed)} and {human(RESERVE)} in reserve, but only "
            f"{human(free)} are free; free some space or choose another disk with --root"
        )


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable (a no-op where folders cannot be opened)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that a crash leaves either the old content or the new one."""
    draft = path.with_name(path.name + ".new")
    with draft.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def exclusive(root: Path, name: str) -> Iterator[None]:
    """Hold ``root/.<name>.lock``; raise FetchError when another process is fetching ``name``."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / f".{name}.lock", timeout=0):
            yield
    except Timeout:
        raise FetchError(
            f"{root / name}: another process is fetching it; wait for that one to end"
        ) from None
