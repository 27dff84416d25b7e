"""What one prediction costs on this machine: seconds and memory."""

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


def call_seconds(
    call: Callable[[], object],
    *,
    warm_up: int = 2,
    repeats: int = 7,
    device: torch.device | str = "cpu",
) -> list[float]:
    """Seconds of each of `repeats` calls without gradient; their median is the latency.

    The first `warm_up` calls do not count: they allocate memory and choose kernels. On a GPU work
    is only queued when a call returns, so both readings of the clock wait for it.
    """
    cuda = torch.device(device).type == "cuda"
    seconds = []
    with torch.inference_mode():
        for turn in range(warm_up + repeats):
            if cuda:
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            call()
            if cuda:
                torch.cuda.synchronize(device)
            if turn >= warm_up:
                seconds.append(time.perf_counter() - start)
    return seconds


@dataclass
class Peak:
    """The result of `peak_memory`: `mb` in 10^6 bytes, or None where it cannot be measured."""

    mb: float | None = None


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Highest memory of this process inside the `with`, beyond what it had at its beginning.

    Linux keeps a high-water mark for each process and lets it be reset; elsewhere nothing is
    measured. Memory that was freed before, but not given back yet, is given back first.
    """
    peak = Peak()
    gc.collect()
    try:
        with contextlib.suppress(OSError, AttributeError):  # the C library need not be glibc
            ctypes.CDLL(None).malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")
        before = _status("VmRSS")
    except OSError:
        yield peak
        return
    yield peak
    peak.mb = _status("VmHWM") - before


def _status(field: str) -> float:
    """A field of the process's status, which counts units of 1024 bytes, in 10^6 bytes."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6
