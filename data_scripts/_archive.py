"""Look into a zip or tar before unpacking it, and refuse whatever could do harm.

Archives come from strangers. Refused, with the names: members that leave the folder (``..``,
absolute paths, drive letters), links of both kinds, devices, encrypted members, names that
overwrite each other on this disk, and bombs (by ratio and by total size).
"""

import lzma
import posixpath
import re
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm.auto import tqdm

from data_scripts._disk import human, require_space
from data_scripts._errors import FetchError

# Pictures hardly shrink and label arrays shrink some 100-fold; deflate's worst case is 1032.
MAX_RATIO = 200
RATIO_MATTERS = 2**20  # bytes: below this even a high ratio does no harm
MAX_MEMBERS = 500_000
CHUNK = 2**20
# What a Mac or Windows adds to archives; never part of a data set.
JUNK = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$|\._|Thumbs\.db$)")
UNSAFE = re.compile(r"^/|^[A-Za-z]:|[\x00-\x1f]")
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
)


@dataclass(frozen=True)
class Member:
    """One entry: normalised name, sizes in bytes, ``kind`` file, folder, link or device."""

    name: str
    size: int
    packed: int
    kind: str
    encrypted: bool
    entry: zipfile.ZipInfo | tarfile.TarInfo


def inspect(archive: Path, *, max_bytes: int, folds_case: bool = False) -> list[Member]:
    """List the files to unpack, after checking every entry of the archive.

    ``max_bytes`` bounds the unpacked size; ``folds_case`` says that the disk takes ``A`` and ``a``
    for the same name. Raises FetchError, naming the archive and the offending members.
    """
    members, total = [], 0
    with _opened(archive) as handle:
        for member in _entries(handle):
            members.append(member)
            total += member.size
            # Inside the loop: a compressed tar is a stream, and listing a bomb would explode it.
            if total > max_bytes or len(members) > MAX_MEMBERS:
                raise FetchError(
                    f"{archive}: unpacks to more than {human(max_bytes)} or {MAX_MEMBERS} files, "
                    "far more than the data set holds; this is not the expected archive"
                )
    packed = archive.stat().st_size
    if total > RATIO_MATTERS and total > MAX_RATIO * packed:
        raise FetchError(
            f"{archive}: {human(packed)} would unpack to {human(total)}, as an archive bomb does; "
            "get the archive from its publisher"
        )
    _refuse(archive, "leaves its folder", [m.name for m in members if not _is_inside(m.name)])
    _refuse(archive, "is a link", [m.name for m in members if m.kind == "link"])
    _refuse(archive, "is a device", [m.name for m in members if m.kind == "device"])
    _refuse(archive, "is encrypted", [m.name for m in members if m.encrypted])
    _refuse(archive, "is an archive bomb", [m.name for m in members if _is_bomb(m)])
    files = [m for m in members if m.kind == "file" and not JUNK.search(m.name)]
    _refuse(archive, "overwrites another member", _collisions(files, folds_case))
    if not files:
        raise FetchError(f"{archive}: holds no files; get the archive from its publisher")
    return files


def unpack(archive: Path, folder: Path, *, max_bytes: int, into: str = "") -> dict[str, int]:
    """Unpack into ``folder``, never over existing files; return path in it -> size in bytes.

    ``into`` is a subfolder that takes the place of the folders which all members have in common.
    The caller hands over a temporary folder and renames it when all went well. Raises FetchError
    for a refused, truncated or corrupt archive and for a disk that is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    members = inspect(archive, max_bytes=max_bytes, folds_case=_folds_case(folder))
    common = _common_folder(members) if into else PurePosixPath()
    total = sum(m.size for m in members)
    require_space(folder, total, f"unpacking {archive}")
    bar = tqdm(total=total, desc=archive.name, unit="B", unit_scale=True, disable=None)
    unpacked = {}
    with bar, _opened(archive) as handle:
        for member in members:
            name = PurePosixPath(into, PurePosixPath(member.name).relative_to(common))
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                output = target.open("xb")
            except FileExistsError:
                raise FetchError(
                    f"{archive}: {member.name} is also in another archive of this data set; "
                    "give each archive once"
                ) from None
            with output, _stream(handle, member) as source:
                _copy(source, output, member, archive, bar)
            unpacked[name.as_posix()] = member.size
    return unpacked


def _copy(source: BinaryIO, output: BinaryIO, member: Member, archive: Path, bar: tqdm) -> None:
    """Copy exactly ``member.size`` bytes: the listing was checked, so it must also be true."""
    written = 0
    while chunk := source.read(CHUNK):
        written += len(chunk)
        if written > member.size:
            break
        output.write(chunk)
        bar.update(len(chunk))
    if written != member.size:
        raise FetchError(
            f"{archive}: {member.name} is not {member.size} bytes long as the archive's listing "
            "says; the archive is damaged: delete it and get it again"
        )


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    """Open the archive; every sign of damage, now or while reading, becomes a FetchError."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as handle:
                yield handle
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as handle:
                yield handle
                while handle.fileobj.read(CHUNK):  # a compressed tar has its checksum at the end
                    pass
        else:
            raise FetchError(
                f"{archive}: {_guess(archive)}, not a whole zip or tar archive; delete it and get "
                "it again"
            )
    except FileNotFoundError:
        raise FetchError(f"{archive}: no such file; correct the path") from None
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the archive's
            raise
        raise FetchError(
            f"{archive}: damaged archive ({error}); delete it and get it again"
        ) from error


def _guess(archive: Path) -> str:
    """What a file that is neither zip nor tar seems to be."""
    if archive.is_dir():
        return "a folder"
    with archive.open("rb") as handle:
        start = handle.read(512)
    if not start:
        return "an empty file"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page"
    known = {
        b"PK\x03\x04": "a truncated zip",
        b"\x1f\x8b": "a truncated or foreign gzip file",
        b"Rar!": "a RAR archive (unpack it yourself, then pass the folder)",
        b"7z\xbc\xaf": "a 7-Zip archive (unpack it yourself, then pass the folder)",
        b"version https://git-lfs": "a Git-LFS pointer (run `git lfs pull`)",
    }
    return next((kind for magic, kind in known.items() if start.startswith(magic)), "data")


def _entries(handle: zipfile.ZipFile | tarfile.TarFile) -> Iterator[Member]:
    if isinstance(handle, zipfile.ZipFile):
        for info in handle.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            kind = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
            yield Member(
                name=_normal(info.filename),
                size=info.file_size,
                packed=info.compress_size,
                kind="folder" if info.is_dir() else kind.get(mode, "device"),
                encrypted=bool(info.flag_bits & 0x1),
                entry=info,
            )
        return
    for info in handle:
        link = info.issym() or info.islnk()
        kind = (
            "link" if link else "file" if info.isreg() else "folder" if info.isdir() else "device"
        )
        name = _normal(info.name)
        yield Member(name, info.size, info.size, kind, encrypted=False, entry=info)


def _stream(handle: zipfile.ZipFile | tarfile.TarFile, member: Member) -> BinaryIO:
    if isinstance(handle, zipfile.ZipFile):
        return handle.open(member.entry)
    return handle.extractfile(member.entry)


def _normal(name: str) -> str:
    """Forward slashes only: some Windows programs write backslashes into zips."""
    return name.replace("\\", "/")


def _is_inside(name: str) -> bool:
    """A relative path without ``..``, drive letter or control characters."""
    return bool(name) and ".." not in name.split("/") and not UNSAFE.search(name)


def _is_bomb(member: Member) -> bool:
    return member.size > RATIO_MATTERS and member.size > MAX_RATIO * max(member.packed, 1)


def _collisions(files: list[Member], folds_case: bool) -> list[str]:
    """Names that come twice, and files in whose place other members need a folder."""

    def key(name: str) -> str:
        path = str(PurePosixPath(name))
        return unicodedata.normalize("NFC", path).casefold() if folds_case else path

    folders = {key(str(parent)) for m in files for parent in PurePosixPath(m.name).parents}
    seen, clashes = set(folders), []
    for member in files:
        if key(member.name) in seen:
            clashes.append(member.name)
        seen.add(key(member.name))
    return clashes


def _folds_case(folder: Path) -> bool:
    """True when the disk of ``folder`` does not tell ``a`` from ``A`` (macOS, Windows)."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".case-probe-") as probe:
        return Path(probe.name.replace(".case-probe-", ".CASE-PROBE-")).exists()


def _common_folder(files: list[Member]) -> PurePosixPath:
    """The deepest folder that holds all files."""
    parents = [str(PurePosixPath(m.name).parent) for m in files]
    return PurePosixPath(posixpath.commonpath(parents))


def _refuse(archive: Path, offence: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(repr(name) for name in names[:5])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise FetchError(
            f"{archive}: refused, because {shown}{more} {offence}; nothing was unpacked: get the "
            "archive from its publisher"
        )
