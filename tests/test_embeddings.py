"""The embedding cache under truncation, flipped bits, full disks, and two processes."""

import multiprocessing
import os
import warnings
from pathlib import Path

import pytest
import torch

from lib.sam import embeddings
from lib.sam.embeddings import EmbeddingCache, room_for

SIZE = 4 * 4 * 8 * 8  # bytes of one tensor below, without the header


def tensor(seed=0):
    return torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed))


def file_of(cache, key):
    cache.put(key, tensor())
    return next(path for path, _ in cache.entries())


def test_round_trip_by_key(tmp_path):
    cache = EmbeddingCache(tmp_path)
    assert cache.get("a") is None
    cache.put("a", tensor(1))
    cache.put("b", tensor(2))
    again = EmbeddingCache(tmp_path)
    assert torch.equal(again.get("a"), tensor(1))
    assert torch.equal(again.get("b"), tensor(2))
    assert "a" in again
    assert "c" not in again
    again.clear()
    assert cache.get("a") is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_put_returns_what_get_will_return(tmp_path, dtype):
    cache = EmbeddingCache(tmp_path, dtype=dtype)
    stored = cache.put("a", tensor())
    assert stored.dtype == dtype
    assert torch.equal(stored, tensor().to(dtype))
    assert torch.equal(cache.get("a"), stored)


def test_half_precision_takes_half_the_space(tmp_path):
    big = torch.randn(64, 64, 64)
    sizes = {}
    for dtype in (torch.float32, torch.bfloat16):
        cache = EmbeddingCache(tmp_path / str(dtype), dtype=dtype)
        cache.put("a", big)
        sizes[dtype] = cache.entries()[0][1]
    assert sizes[torch.bfloat16] / sizes[torch.float32] == pytest.approx(0.5, abs=0.01)


def test_reading_is_mapped_and_writing_into_it_stays_private(tmp_path):
    cache = EmbeddingCache(tmp_path)
    path = file_of(cache, "a")
    read = cache.get("a")
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert path.name in maps.read_text()
    read.zero_()
    assert torch.equal(cache.get("a"), tensor())


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_entry_is_found_and_replaced(tmp_path, share):
    cache = EmbeddingCache(tmp_path)
    path = file_of(cache, "a")
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.warns(UserWarning, match="is damaged"):
        assert cache.get("a") is None
    assert not path.exists()
    cache.put("a", tensor())
    assert torch.equal(cache.get("a"), tensor())


def test_every_flipped_bit_is_found(tmp_path):
    cache = EmbeddingCache(tmp_path)
    path = file_of(cache, "a")
    content = path.read_bytes()
    # safetensors pads its JSON header with blanks; a flip there may leave the meaning as it was
    for position in range(0, len(content), 37):
        flipped = bytearray(content)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = cache.get("a")
        assert found is None or torch.equal(found, tensor()), position
        if position >= len(content) - SIZE:
            assert found is None, position


def test_entry_of_another_key_is_stale(tmp_path):
    cache = EmbeddingCache(tmp_path)
    path = file_of(cache, "a")
    other = cache._path("b")
    other.parent.mkdir(exist_ok=True)
    path.rename(other)
    with pytest.warns(UserWarning, match="belongs to another key"):
        assert cache.get("b") is None


@pytest.mark.filterwarnings("ignore:embedding cache .* is full")
def test_bound_holds_after_every_write_and_the_longest_unused_goes(tmp_path):
    cache = EmbeddingCache(tmp_path / "probe")
    entry = file_of(cache, "0").stat().st_size
    cache = EmbeddingCache(tmp_path / "bounded", max_bytes=10 * entry)
    for number in range(25):
        cache.put(f"{number:02}", tensor(number))
        cache.get("00")  # always in use
        assert sum(size for _, size in cache.entries()) <= cache.max_bytes
    assert torch.equal(cache.get("00"), tensor(0))
    assert cache.get("01") is None
    kept = [number for number in range(1, 25) if f"{number:02}" in cache]
    assert kept == list(range(kept[0], 25))  # the newest, without a gap
    assert len(kept) >= 7


def test_a_run_that_goes_round_more_than_fits_is_told_once(tmp_path):
    def rounds(cache):
        for number in (*range(6), *range(6)):
            if cache.get(str(number)) is None:
                cache.put(str(number), tensor(number))

    entry = file_of(EmbeddingCache(tmp_path / "probe"), "0").stat().st_size
    with pytest.warns(UserWarning, match="a larger max_bytes is faster") as found:
        rounds(EmbeddingCache(tmp_path / "small", max_bytes=4 * entry))
    assert len(found) == 1
    assert f"{tmp_path / 'small'} is full at max_bytes={4 * entry:,}" in str(found[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rounds(EmbeddingCache(tmp_path / "large", max_bytes=8 * entry))


def test_entries_of_earlier_runs_make_room_in_silence(tmp_path):
    entry = file_of(EmbeddingCache(tmp_path / "probe"), "0").stat().st_size
    folder, old, new = tmp_path / "shared", "abcdef", "ghij"
    for key in old:
        EmbeddingCache(folder).put(key, tensor())
    cache = EmbeddingCache(folder, max_bytes=8 * entry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for key in new:
            cache.put(key, tensor())
    assert all(key in cache for key in new)
    assert not all(key in cache for key in old)


def test_entry_larger_than_the_bound_is_not_stored(tmp_path):
    cache = EmbeddingCache(tmp_path, max_bytes=100)
    with pytest.warns(UserWarning, match="larger than max_bytes"):
        stored = cache.put("a", tensor())
    assert torch.equal(stored, tensor())
    assert cache.entries() == []


def test_full_disk_loses_nothing_and_warns_once(tmp_path, monkeypatch):
    cache = EmbeddingCache(tmp_path)
    cache.put("a", tensor(1))
    write = Path.write_bytes

    def full(path, content):
        write(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        stored = cache.put("b", tensor(2))
    assert torch.equal(stored, tensor(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the second time it is silent
        cache.put("c", tensor(3))
    assert cache.get("b") is None
    assert torch.equal(cache.get("a"), tensor(1))
    assert not list(tmp_path.glob("*/*.tmp"))
    monkeypatch.undo()
    cache.put("b", tensor(2))
    assert torch.equal(cache.get("b"), tensor(2))


def test_unreadable_entry_is_kept_and_not_called_damaged(tmp_path, monkeypatch):
    cache = EmbeddingCache(tmp_path)
    path = file_of(cache, "a")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(embeddings, "safe_open", denied)
    with pytest.warns(UserWarning, match="cannot read"):
        assert cache.get("a") is None
    assert path.exists()


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    cache = EmbeddingCache(tmp_path)
    folder = file_of(cache, "a").parent
    old, young = folder / "x.1.tmp", folder / "x.2.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    EmbeddingCache(tmp_path).put("b", tensor())
    assert not old.exists()
    assert young.exists()


def _write_and_read(directory, start, failures):
    """Write the same keys as the other process, over and over, and read each back."""
    torch.set_num_threads(1)
    cache = EmbeddingCache(directory, max_bytes=20_000)
    warnings.simplefilter("error")  # a damaged entry would warn
    start.wait()
    for round_ in range(15):
        for number in range(8):
            found = cache.get(str(number))
            if found is not None and not torch.equal(found, tensor(number)):
                failures.put(f"round {round_}: entry {number} is wrong")
            cache.put(str(number), tensor(number))
    failures.put(None)


def test_two_processes_share_a_cache(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, failures = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_write_and_read, args=(tmp_path, start, failures)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    assert [failures.get(timeout=120) for _ in processes] == [None, None]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    cache = EmbeddingCache(tmp_path)
    assert sum(size for _, size in cache.entries()) <= 20_000 * 9 / 8
    assert all(torch.equal(cache.get(str(n)), tensor(n)) for n in range(8) if str(n) in cache)
    assert not list(tmp_path.glob("*/*.tmp"))


def test_arguments_that_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match="max_bytes=0"):
        EmbeddingCache(tmp_path, max_bytes=0)
    with pytest.raises(ValueError, match="dtype"):
        EmbeddingCache(tmp_path, dtype=torch.int8)


def test_there_is_room_for_as_many_as_were_asked_for(tmp_path):
    cache = EmbeddingCache(tmp_path, max_bytes=room_for(40, 64, least=0))
    for number in range(40):  # 16 tokens each; nothing is removed, so nothing warns
        cache.put(f"image {number}", torch.zeros(256, 4, 4))
    assert all(f"image {number}" in cache for number in range(40))
    assert room_for(1, 64) == 20 * 1024**3
