"""One file from one address: resumed, retried, checked, and moved into place only when whole.

pooch names and computes the hashes here (``"sha256:..."``, ``"md5:..."``), but its downloaders
start from zero after every broken connection. With archives of 11 GB that will not do, so the
transfer itself is written out below on requests: HTTP Range with If-Range (RFC 9110, sections
13.1.5 and 14) into ``<name>.part``, whose origin is noted in ``<name>.part.json``.
"""

import errno
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from tqdm.auto import tqdm

from data_scripts._disk import human, require_space, sync_folder
from data_scripts._errors import FetchError
from data_scripts._partial import Partial

CHUNK = 64 * 1024
PROGRESS = 2**20  # bytes that count as progress: they reset the number of failures in a row
LONGEST_WAIT = 30.0  # seconds, also for a server's Retry-After
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Policy:
    """How patient a download is: failures in a row, first wait and time-outs in seconds."""

    failures: int = 6
    wait: float = 1.0
    timeout: tuple[float, float] = (15.0, 60.0)


class _Again(Exception):
    """This attempt failed in a way that another attempt may cure."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def verify(path: Path, *, known_hash: str | None, size: int | None, url: str = "") -> None:
    """Raise FetchError unless the file has the size in bytes and the hash, where these are known.

    ``known_hash`` is in pooch's form: ``"sha256:<hex>"`` or ``"md5:<hex>"``.
    """
    origin = f" from {url}" if url else ""
    found = path.stat().st_size
    if size is not None and found != size:
        raise FetchError(
            f"{path}: {found} bytes{origin}, but {size} are expected; delete it and run again, "
            "or name another mirror with --url"
        )
    if known_hash is None:
        return
    algorithm, _, expected = known_hash.partition(":")
    actual = pooch.file_hash(str(path), alg=algorithm)
    if actual != expected.lower():
        raise FetchError(
            f"{path}: {algorithm} is {actual}{origin}, but {expected} is expected; delete it and "
            "run again, name another mirror with --url, or pin the hash you trust with --sha256"
        )


def download(
    url: str,
    path: Path,
    *,
    known_hash: str | None = None,
    size: int | None = None,
    hint: str = "",
    policy: Policy | None = None,
) -> None:
    """Bring ``url`` to ``path``; return at once when a good file is there already.

    An interruption of any kind leaves ``<name>.part``, from which the next call goes on. Bytes
    that fail the check never appear under the final name. ``hint`` is added to errors which only
    the user can cure (moved address, certificate).

    Raises: FetchError, in one line, for everything a network or a disk may do.
    """
    if path.exists():
        verify(path, known_hash=known_hash, size=size)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Partial(path, url)
    resumed = _transfer(url, part, known_hash, size, hint, policy or Policy())
    try:
        verify(part.file, known_hash=known_hash, size=size, url=url)
    except FetchError:
        part.discard()
        if not resumed:
            raise
        # The piece from an earlier run may have been another version's: once more, from zero.
        _transfer(url, part, known_hash, size, hint, policy or Policy())
        try:
            verify(part.file, known_hash=known_hash, size=size, url=url)
        except FetchError:
            part.discard()
            raise
    os.replace(part.file, path)
    part.discard()
    sync_folder(path.parent)


def _transfer(
    url: str, part: Partial, known_hash: str | None, size: int | None, hint: str, policy: Policy
) -> bool:
    """Fill the partial file; True when it consists of the pieces of several connections."""
    furthest, failures = part.offset, 0
    with requests.Session() as session:
        while True:  # ends: each turn brings PROGRESS more than ever before, or counts as failure
            offset = part.resumable_offset(known_hash)
            if offset and offset == part.total:
                return True
            wait = None
            try:
                return _receive(session, url, part, offset, size, hint, policy) > 0
            except _Again as again:
                reason, wait = str(again), again.wait
            except requests.exceptions.SSLError as error:
                if "certificate" in str(error).lower():
                    raise _certificate_error(url, hint) from error
                reason = "the encrypted connection broke"
            except requests.exceptions.Timeout:
                reason = f"no answer within {policy.timeout[1]:.0f} s"
            except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError):
                reason = "the connection failed"
            except requests.exceptions.RequestException as error:
                raise FetchError(f"{url}: {error}; correct the address (--url). {hint}") from error
            failures = 0 if part.offset >= furthest + PROGRESS else failures + 1
            furthest = max(furthest, part.offset)
            if failures >= policy.failures:
                kept = f"{human(part.offset)} are kept in {part.file}" if part.offset else ""
                raise FetchError(
                    f"{url}: {reason}, {failures} times in a row; {kept or 'check the network'}: "
                    "run the same command again to go on, or use --url or --archive"
                )
            pause = min(wait or policy.wait * 2**failures, LONGEST_WAIT)
            print(f"{part.name}: {reason}; trying again in {pause:.0f} s", file=sys.stderr)
            time.sleep(pause)


def _receive(
    session: requests.Session,
    url: str,
    part: Partial,
    offset: int,
    size: int | None,
    hint: str,
    policy: Policy,
) -> int:
    """One request, to the end of the file; returns where its bytes begin. Else raises _Again."""
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if part.validator:
            headers["If-Range"] = part.validator
    with session.get(url, headers=headers, stream=True, timeout=policy.timeout) as response:
        total, offset = _agree(response, url, part, offset, hint)
        chunks = response.iter_content(CHUNK)
        first = next(chunks, b"")
        if offset == 0 and _is_page(response, first):
            part.discard()
            raise FetchError(
                f"{url}: the server sent a web page, not a file (a login, or the address moved); "
                f"open it in a browser, then use --url or --archive. {hint}".rstrip()
            )
        if None not in (size, total) and size != total:
            part.discard()
            raise FetchError(
                f"{url}: the server offers {total} bytes, but {size} are expected; the file was "
                f"replaced or the mirror is not the same: use --url or --archive. {hint}".rstrip()
            )
        limit = size if total is None else total
        require_space(part.file.parent, (limit or offset) - offset, f"the download of {url}")
        if offset == 0:
            part.begin(response, total)
        _write(part, first, chunks, limit, url)
    if limit is not None and part.offset < limit:
        raise _Again(f"the connection broke off at {human(part.offset)} of {human(limit)}")
    return offset


def _agree(
    response: requests.Response, url: str, part: Partial, offset: int, hint: str
) -> tuple[int | None, int]:
    """What the answer means: (total size in bytes or None, position where its bytes belong)."""
    status = response.status_code
    if status == 200:  # also the answer when If-Range finds a changed file, or Range is unknown
        length = response.headers.get("Content-Length", "")
        return (int(length) if length.isdigit() else None), 0
    if status == 206 and offset:
        match = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        total = int(match[2]) if match and match[2] != "*" else part.total
        if match and int(match[1]) == offset and part.is_same_file(response, total):
            return total, offset
    if status in (206, 416):
        part.discard()
        raise _Again("the server cannot continue the partial file (it starts from zero now)")
    if status in TRANSIENT:
        pause = response.headers.get("Retry-After", "")
        raise _Again(f"the server answers {status}", float(pause) if pause.isdigit() else None)
    raise FetchError(
        f"{url}: the server answers {status} {response.reason}; look whether the address moved, "
        f"then use --url, or --archive with a file you have. {hint}".rstrip()
    )


def _write(part: Partial, first: bytes, chunks, limit: int | None, url: str) -> None:
    """Append to the partial file; whatever interrupts this, the bytes so far are on the disk."""
    bar = tqdm(
        total=limit,
        initial=part.offset,
        desc=part.name,
        unit="B",
        unit_scale=True,
        disable=None,
    )
    with bar, part.file.open("ab") as handle:
        try:
            while first:
                handle.write(first)
                bar.update(len(first))
                if limit is not None and handle.tell() > limit:
                    break
                first = next(chunks, b"")
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise FetchError(
                    f"{part.file}: the disk is full; free some space and run the same command "
                    "again to go on"
                ) from error
            raise
        finally:
            handle.flush()
            os.fsync(handle.fileno())
    if limit is not None and part.offset > limit:
        part.discard()
        raise FetchError(f"{url}: more than the expected {limit} bytes arrive; use another --url")


def _is_page(response: requests.Response, start: bytes) -> bool:
    kind = response.headers.get("Content-Type", "").lower()
    text = start[:512].lstrip().lower()
    return kind.startswith("text/html") or text.startswith((b"<!doctype html", b"<html"))


def _certificate_error(url: str, hint: str) -> FetchError:
    return FetchError(
        f"{url}: the server's certificate cannot be verified, and verification stays on; if the "
        "server omits its intermediate certificate, add that one to a copy of certifi's bundle and "
        f"point REQUESTS_CA_BUNDLE to it (data_scripts/README.md shows how). {hint}".rstrip()
    )
