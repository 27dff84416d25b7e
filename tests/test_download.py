"""Downloads against a server that breaks off, lies and changes its mind."""

import errno
import hashlib
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest
import requests
from http_server import Server, send

import data_scripts._download as module
from data_scripts._download import Policy, download
from data_scripts._errors import FetchError

BODY = random.Random(0).randbytes(1_000_000)
OTHER = random.Random(1).randbytes(1_000_000)
HASH = "sha256:" + hashlib.sha256(BODY).hexdigest()
QUICK = Policy(failures=3, wait=0.001, timeout=(2.0, 2.0))


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "downloads" / "file.zip"


def get(server, path, **options):
    download(server.url(), path, policy=QUICK, **options)


def leftovers(path):
    return sorted(p.name for p in path.parent.glob("*") if p != path)


def test_a_plain_download_is_checked_and_a_second_one_asks_nothing(server, path):
    server.plan = [send(BODY)]
    get(server, path, known_hash=HASH, size=len(BODY))
    get(server, path, known_hash=HASH, size=len(BODY))
    assert path.read_bytes() == BODY
    assert len(server.requests) == 1
    assert leftovers(path) == []


def test_a_broken_connection_is_resumed_where_it_broke(server, path):
    server.plan = [send(BODY, break_after=400_000), send(BODY, break_after=300_000), send(BODY)]
    get(server, path, known_hash=HASH)
    assert path.read_bytes() == BODY
    offsets = [int(value[6:-1]) for value in server.ranges[1:]]
    assert 0 < offsets[0] <= 400_000 < offsets[1] <= 700_000
    assert server.requests[1]["If-Range"] == '"v1"'


def test_a_later_run_goes_on_from_the_partial_file(server, path):
    server.plan = [send(BODY, break_after=500_000), send(b"", status=503)]
    with pytest.raises(FetchError, match=r"503.*run the same command again"):
        get(server, path)
    assert not path.exists()
    kept = (path.parent / "file.zip.part").stat().st_size
    assert kept > 0
    server.plan = [send(BODY)]
    get(server, path)
    assert server.ranges[-1] == f"bytes={kept}-"
    assert path.read_bytes() == BODY


def test_an_interruption_by_the_user_keeps_the_partial_file(server, path, monkeypatch):
    server.plan = [send(BODY)]
    genuine = requests.Response.iter_content

    def interrupted(self, size):
        chunks = genuine(self, size)
        yield next(chunks)
        yield next(chunks)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(requests.Response, "iter_content", interrupted)
        with pytest.raises(KeyboardInterrupt):
            get(server, path)
    assert (path.parent / "file.zip.part").read_bytes() == BODY[: 2 * module.CHUNK]
    get(server, path)
    assert server.ranges == [None, f"bytes={2 * module.CHUNK}-"]
    assert path.read_bytes() == BODY


def test_a_killed_process_leaves_a_piece_to_go_on_from(server, path):
    release = threading.Event()

    def half(handler):  # half of the body, and then silence
        send(BODY, break_after=500_000)(handler)
        release.wait(20)

    server.plan = [half]
    path.parent.mkdir()
    code = (
        "import sys, pathlib; from data_scripts._download import download;"
        "download(sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen([sys.executable, "-c", code, server.url(), str(path)], cwd=root)
    part = path.parent / "file.zip.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 100_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    release.set()
    kept = part.stat().st_size
    assert part.read_bytes() == BODY[:kept]
    server.plan = [send(BODY)]
    get(server, path)
    assert server.ranges == [None, f"bytes={kept}-"]
    assert path.read_bytes() == BODY


def test_a_server_that_ignores_range_is_read_from_zero_again(server, path):
    server.plan = [send(BODY, break_after=400_000), send(BODY, ranges=False)]
    get(server, path, known_hash=HASH)
    assert server.ranges[1] is not None
    assert path.read_bytes() == BODY


def test_a_changed_etag_never_mixes_two_versions(server, path):
    server.plan = [send(OTHER, etag='"old"', break_after=400_000), send(BODY, etag='"new"')]
    get(server, path)  # no hash known: the validator alone must prevent the mixture
    assert path.read_bytes() == BODY


def test_a_206_of_another_version_is_not_appended(server, path):
    def careless(handler):  # continues although If-Range names another version
        start = int(handler.headers["Range"][6:-1])
        handler.send_response(206)
        handler.send_header("ETag", '"new"')
        handler.send_header("Content-Length", str(len(BODY) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        handler.end_headers()
        handler.wfile.write(BODY[start:])

    server.plan = [send(OTHER, etag='"old"', break_after=400_000), careless, send(BODY)]
    get(server, path)
    assert path.read_bytes() == BODY


def test_a_206_for_another_position_is_not_appended(server, path):
    def wrong_position(handler):
        handler.send_response(206)
        handler.send_header("ETag", '"v1"')
        handler.send_header("Content-Length", "10")
        handler.send_header("Content-Range", f"bytes 0-9/{len(BODY)}")
        handler.end_headers()
        handler.wfile.write(BODY[:10])

    server.plan = [send(BODY, break_after=400_000), wrong_position, send(BODY)]
    get(server, path, known_hash=HASH)
    assert path.read_bytes() == BODY


def test_without_validator_and_hash_a_piece_is_not_trusted(server, path):
    server.plan = [send(OTHER, etag=None, break_after=400_000), send(BODY, etag=None)]
    get(server, path)
    assert server.ranges == [None, None]
    assert path.read_bytes() == BODY


def test_a_mixture_that_the_hash_reveals_is_fetched_once_more(server, path):
    server.plan = [send(OTHER, etag=None, break_after=400_000), send(BODY, etag=None)]
    get(server, path, known_hash=HASH)  # resumes for the hash's sake, and then starts again
    assert server.ranges[0] is None
    assert server.ranges[1] is not None
    assert server.ranges[2] is None
    assert path.read_bytes() == BODY


def test_416_starts_again(server, path):
    refuse = send(b"", status=416, headers={"Content-Range": "bytes */10"})
    server.plan = [send(BODY, break_after=400_000), refuse, send(BODY)]
    get(server, path, known_hash=HASH)
    assert path.read_bytes() == BODY


def test_a_complete_partial_file_needs_no_request(server, path):
    server.plan = [send(BODY, break_after=400_000), send(b"", status=404)]
    with pytest.raises(FetchError):
        get(server, path)
    (path.parent / "file.zip.part").write_bytes(BODY)  # killed between last byte and rename
    before = len(server.requests)
    get(server, path, known_hash=HASH)
    assert len(server.requests) == before
    assert path.read_bytes() == BODY


def test_wrong_bytes_are_refused_and_removed(server, path):
    server.plan = [send(OTHER)]
    with pytest.raises(FetchError, match=r"sha256 is [0-9a-f]{64} from http.*is expected") as error:
        get(server, path, known_hash=HASH)
    assert "\n" not in str(error.value)
    assert not path.exists()
    assert leftovers(path) == []


def test_an_md5_is_checked_as_well(server, path):
    server.plan = [send(BODY)]
    with pytest.raises(FetchError, match="md5 is"):
        get(server, path, known_hash="md5:" + "0" * 32)
    get(server, path, known_hash="md5:" + hashlib.md5(BODY).hexdigest())
    assert path.read_bytes() == BODY


def test_a_wrong_file_under_the_final_name_is_reported_and_left(server, path):
    path.parent.mkdir()
    path.write_bytes(OTHER)
    with pytest.raises(FetchError, match=r"file\.zip: sha256 is .* delete it"):
        get(server, path, known_hash=HASH)
    assert path.read_bytes() == OTHER
    assert server.requests == []


def test_too_large_a_content_length_ends_after_bounded_attempts(server, path):
    server.plan = [send(BODY, announce=len(BODY) + 5_000, ranges=False)]
    with pytest.raises(FetchError, match="3 times in a row"):
        get(server, path)
    assert len(server.requests) <= 5
    assert not path.exists()


def test_too_small_a_content_length_is_found_by_size_and_by_hash(server, path):
    server.plan = [send(BODY, announce=1_000)]
    with pytest.raises(FetchError, match=r"offers 1000 bytes, but 1000000 are expected"):
        get(server, path, size=len(BODY))
    with pytest.raises(FetchError, match="sha256 is"):
        get(server, path, known_hash=HASH)
    assert not path.exists()


def test_a_body_longer_than_expected_is_cut_off(server, path):
    def endless(handler):  # no Content-Length at all
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(BODY + OTHER)

    server.plan = [endless]
    with pytest.raises(FetchError, match="more than the expected 1000000 bytes"):
        get(server, path, size=len(BODY))
    assert leftovers(path) == []


def test_a_web_page_instead_of_the_file_is_named(server, path):
    page = b"\n <!DOCTYPE html><html>please log in</html>"
    for kind in ("text/html; charset=utf-8", "application/zip"):
        server.plan = [send(page, kind=kind)]
        with pytest.raises(FetchError, match=r"web page.*browser.*--archive"):
            get(server, path, known_hash=HASH, size=len(BODY))
    assert leftovers(path) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_final_refusal_is_not_repeated(server, path, status):
    server.plan = [send(b"", status=status)]
    with pytest.raises(FetchError, match=rf"answers {status} .*--url.*see the page"):
        get(server, path, hint="see the page")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_refusal_is_repeated(server, path, status):
    server.plan = [send(b"", status=status, headers={"Retry-After": "0"}), send(BODY)]
    get(server, path, known_hash=HASH)
    assert len(server.requests) == 2


def test_retry_after_is_obeyed_within_reason(server, path, monkeypatch):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    busy = [send(b"", status=503, headers={"Retry-After": value}) for value in ("7", "86400")]
    server.plan = [*busy, send(BODY)]
    get(server, path)
    assert pauses == [7.0, module.LONGEST_WAIT]


def test_waits_grow_and_progress_resets_the_count(server, path, monkeypatch):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    monkeypatch.setattr(module, "PROGRESS", 200_000)
    steps = [send(BODY, break_after=300_000) for _ in range(3)]  # one failure more than allowed
    server.plan = [*steps, send(BODY)]
    download(server.url(), path, policy=Policy(failures=1, wait=1.0), known_hash=HASH)
    assert pauses == [1.0, 1.0, 1.0]
    server.plan = [send(b"", status=500)]
    with pytest.raises(FetchError):
        download(server.url("x"), path.with_name("x"), policy=Policy(failures=4, wait=1.0))
    assert pauses[3:] == [2.0, 4.0, 8.0]


def test_no_server_at_all(path):
    with pytest.raises(FetchError, match="connection failed, 3 times in a row; check the network"):
        download("http://127.0.0.1:9/file.zip", path, policy=QUICK)


def test_an_address_that_is_none(path):
    with pytest.raises(FetchError, match="correct the address"):
        download("kvasir-seg.zip", path, policy=QUICK)


def test_a_certificate_that_cannot_be_verified_says_how_to_add_the_authority(path, monkeypatch):
    def refuse(*_, **options):
        assert options.get("verify", True) is True
        raise requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get issuer")

    monkeypatch.setattr(requests.Session, "get", refuse)
    with pytest.raises(FetchError, match=r"REQUESTS_CA_BUNDLE") as error:
        download("https://127.0.0.1/file.zip", path, policy=QUICK)
    assert "verification stays on" in str(error.value)


def test_too_small_a_disk_is_told_before_the_first_byte(server, path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1_000))
    server.plan = [send(BODY)]
    with pytest.raises(FetchError, match=r"needs 1\.0 MB and .* only 1\.0 kB are free"):
        get(server, path)
    assert leftovers(path) == []


def test_a_disk_that_fills_up_keeps_the_partial_file(server, path, monkeypatch):
    server.plan = [send(BODY)]

    class Full:
        def __init__(self, *_, **__):
            self.count = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def update(self, _):
            self.count += 1
            if self.count == 3:
                raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "tqdm", Full)
        with pytest.raises(FetchError, match="disk is full"):
            get(server, path)
    get(server, path, known_hash=HASH)
    assert server.ranges[-1] == f"bytes={3 * module.CHUNK}-"
    assert path.read_bytes() == BODY


def test_another_mirror_goes_on_with_the_piece_when_a_hash_guards_it(server, path):
    server.plan = [send(BODY, break_after=400_000), send(b"", status=404)]
    with pytest.raises(FetchError):
        get(server, path, known_hash=HASH)
    server.plan = [send(BODY, etag='"mirror"')]
    download(server.url("mirror.zip"), path, policy=QUICK, known_hash=HASH)
    assert server.ranges[-1] is not None
    assert "If-Range" not in server.requests[-1]
    assert path.read_bytes() == BODY
