"""From a data set's description to its folder: get the archives, check, unpack, rename."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pooch

from data_scripts._archive import unpack
from data_scripts._check import Report, check_archives, check_files, check_opening
from data_scripts._disk import exclusive, require_space, sync_folder
from data_scripts._download import Policy, download, verify
from data_scripts._errors import FetchError
from data_scripts._kaggle import download_from_kaggle
from data_scripts._record import (
    Record,
    compare_with_first,
    load_record,
    save_record,
)
from data_scripts._sets import DataSet, Source

# Unpacked data may exceed the expectation by this factor before it counts as an archive bomb.
SLACK = 4
GIVEN = "given by the user"  # where an archive came from, in the record


@dataclass(frozen=True)
class Options:
    """The user's wishes. ``pins``: archive name -> known hash; "" stands for the only archive."""

    root: Path = Path("data")
    archives: tuple[Path, ...] = ()
    url: str | None = None
    pins: dict[str, str] = field(default_factory=dict)
    keep_archive: bool = False
    policy: Policy = field(default_factory=Policy)


def verify_set(dataset: DataSet, options: Options) -> Report:
    """Check the data set's folder, or the folder given with --archive, and change nothing."""
    given = given_folder(options)
    record = Record() if given else load_record(options.root, dataset.name)
    folder = given or options.root / dataset.name
    report = check_files(dataset, folder, record)
    check_archives(record, options.root / "archives", report)
    if not report.problems:
        check_opening(dataset, folder, report)
    return report


def fetch(dataset: DataSet, options: Options) -> Report:
    """Bring the data set to ``root/<name>``, unless a good one is there already.

    The folder appears with its last file or not at all. Archives which were downloaded are
    deleted at the end (unless kept); on failure they stay, so nothing has to be fetched twice.
    Raises FetchError.
    """
    if given_folder(options):
        return verify_set(dataset, options)
    folder = options.root / dataset.name
    with exclusive(options.root, dataset.name):
        if folder.exists():
            report = verify_set(dataset, options)
            state = "not in order: move it away and run again" if report.problems else "complete"
            report.facts.insert(0, f"{folder} is there already and {state}; nothing was done")
            return report
        archives = _get_archives(dataset, options)
        record = Record({path.name: entry for path, _, entry in archives})
        draft = options.root / f".{dataset.name}.unpacking"
        shutil.rmtree(draft, ignore_errors=True)  # what a killed run left
        try:
            for path, source, _ in archives:
                into = source.into if source else ""
                record.files |= unpack(path, draft, max_bytes=SLACK * dataset.unpacked, into=into)
            report = check_files(dataset, draft, record)
            report.warnings += _unofficial(archives)
            if report.problems:
                names = ", ".join(str(path) for path, _, _ in archives)
                raise FetchError(
                    f"{names}: not the expected data set: {report.problems[0]}; compare with "
                    f"{dataset.homepage}"
                )
            if hasattr(os, "sync"):
                os.sync()  # one flush for tens of thousands of small files
            save_record(options.root, dataset.name, record)
            os.rename(draft, folder)
            sync_folder(options.root)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    if not options.keep_archive:
        downloaded = [path for path, _, entry in archives if entry["from"] != GIVEN]
        _delete_downloads(options.root / "archives", downloaded)
    check_opening(dataset, folder, report)
    report.facts.insert(0, f"{dataset.title} is in {folder}")
    return report


def given_folder(options: Options) -> Path | None:
    """A folder in place of archives: data that the user unpacked before, used where it lies."""
    folders = [path for path in options.archives if path.is_dir()]
    if folders and len(options.archives) > 1:
        raise FetchError(f"{folders[0]}: a folder stands alone; give one folder, or archives only")
    return folders[0] if folders else None


def _get_archives(
    dataset: DataSet, options: Options
) -> list[tuple[Path, Source | None, dict[str, str | int]]]:
    """The archives on this disk, each with its source and its entry for the record."""
    if not dataset.sources:
        if not options.archives:
            raise FetchError(
                f"{dataset.title}: cannot be downloaded by a script; {dataset.how_to_get}, then "
                "pass what you have with --archive FILE (or a folder, if it is unpacked)"
            )
        names = [path.name for path in options.archives]
        return [
            (path, None, _given_entry(path, _pin(path.name, names, options)))
            for path in options.archives
        ]
    given = _assign(dataset, options.archives)
    to_fetch = [source for source in dataset.sources if source.filename not in given]
    expected = sum(source.size or 0 for source in to_fetch) - _present(to_fetch, options.root)
    require_space(options.root, max(expected, 0) + dataset.unpacked, f"getting {dataset.title}")
    result = []
    names = [source.filename for source in dataset.sources]
    for source in dataset.sources:
        pin = _pin(source.filename, names, options)
        path = given.get(source.filename)
        if path:
            result.append((path, source, _given_entry(path, pin)))
            continue
        path = options.root / "archives" / source.filename
        origin = _get(source, path, pin, options, dataset)
        entry = _entry(path, origin, verified=pin or source.known_hash)
        if not (pin or source.known_hash):
            compare_with_first(options.root, dataset.name, path.name, entry["sha256"])
        result.append((path, source, entry))
    return result


def _get(source: Source, path: Path, pin: str | None, options: Options, dataset: DataSet) -> str:
    """Download one archive; return where it came from."""
    known_hash = pin or source.known_hash
    if source.kaggle and not options.url:
        download_from_kaggle(source.kaggle, path)
        verify(path, known_hash=known_hash, size=None)
        return f"kaggle:{source.kaggle}"
    url = options.url or source.url
    if options.url and url.endswith("/"):
        url += source.filename
    elif options.url and len(dataset.sources) > 1:
        raise FetchError(f"{url}: several archives are needed; end --url with / for a folder")
    # Who pins another hash wants another version, whose size nobody here knows.
    size = None if pin else source.size
    hint = f"Home page: {dataset.homepage}"
    download(url, path, known_hash=known_hash, size=size, hint=hint, policy=options.policy)
    return url


def _present(sources: list[Source], root: Path) -> int:
    """Bytes of these archives that are on the disk already, in part or whole."""
    paths = [root / "archives" / source.filename for source in sources]
    paths += [path.with_name(path.name + ".part") for path in paths]
    return sum(path.stat().st_size for path in paths if path.exists())


def _assign(dataset: DataSet, archives: tuple[Path, ...]) -> dict[str, Path]:
    """Source file name -> the user's archive: by name, else the only one that can be meant."""
    names = {source.filename.lower(): source.filename for source in dataset.sources}
    given = {names[path.name.lower()]: path for path in archives if path.name.lower() in names}
    rest = [path for path in archives if path.name.lower() not in names]
    free = [source for source in dataset.sources if source.filename not in given]
    # Browsers call a Kaggle download "archive.zip": it is the one that has no public address.
    free = [source for source in free if source.url is None] or free
    if len(rest) == 1 and len(free) == 1:
        given[free[0].filename] = rest.pop()
    if rest:
        raise FetchError(
            f"{rest[0]}: cannot tell which archive this is; rename it to one of: "
            + ", ".join(source.filename for source in dataset.sources)
        )
    return given


def _pin(name: str, names: list[str], options: Options) -> str | None:
    """The hash that the user asks of archive ``name``, one of ``names``."""
    ambiguous = "" in options.pins and len(names) > 1
    if ambiguous or not set(options.pins) <= {"", *names}:
        raise FetchError(
            f"--sha256: say for which archive, as NAME=HASH; there are {', '.join(names)}"
        )
    return options.pins.get(name) or options.pins.get("")


def _given_entry(path: Path, pin: str | None) -> dict[str, str | int]:
    """Like _entry, for an archive of the user's, which need not be the official one."""
    if pin and path.is_file():
        verify(path, known_hash=pin, size=None)
    return _entry(path, GIVEN, verified=pin)


def _unofficial(archives: list[tuple[Path, Source | None, dict[str, str | int]]]) -> list[str]:
    """Warnings about archives whose SHA-256 is not the one of the publisher's file."""
    return [
        f"{path}: not the publisher's file (SHA-256 is not {source.known_hash[7:]}); its counts "
        "and pictures were checked all the same"
        for path, source, entry in archives
        if source and (source.known_hash or "").startswith("sha256:")
        if source.known_hash != f"sha256:{entry['sha256']}"
    ]


def _entry(path: Path, origin: str, verified: str | None = None) -> dict[str, str | int]:
    """What the record keeps of an archive; a SHA-256 just ``verified`` is not computed again."""
    if not path.is_file():
        raise FetchError(f"{path}: no such file; correct the path given with --archive")
    algorithm, _, digest = (verified or "").partition(":")
    if algorithm != "sha256":
        digest = pooch.file_hash(str(path), alg="sha256")
    return {"sha256": digest, "size": path.stat().st_size, "from": origin}


def _delete_downloads(archives: Path, paths: list[Path]) -> None:
    for path in paths:
        path.unlink()
    if archives.is_dir() and not any(archives.iterdir()):
        archives.rmdir()
