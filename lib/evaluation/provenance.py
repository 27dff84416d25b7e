"""What a result depends on besides its parameters: code, packages, hardware, memory.

Nothing here names a person, a machine or a path: records are published.
"""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "monai",
    "segment-anything",
    "segmentation-models-pytorch",
    "timm",
    "lightning-fabric",
)
REPOSITORY = Path(__file__).resolve().parents[2]
# What a result can depend on: notebooks and results change by being run.
CODE = ("lib", "weights", "workflow", "benchmarks", "data_scripts")


def provenance() -> dict[str, object]:
    """``commit``, ``packages`` and ``hardware`` as a record holds them.

    Call it when a run starts: the checkout may change while it trains.
    """
    return {"commit": commit(), "packages": packages(), "hardware": hardware()}


def commit(repository: Path = REPOSITORY) -> str | None:
    """The checked-out commit, with "+dirty" when code or weights differ from it.

    None where this package is not run from its own git checkout.
    """
    try:
        top = _git("rev-parse", "--show-toplevel", at=repository)
        if Path(top).resolve() != repository.resolve():
            return None  # an installed copy inside somebody else's repository
        head = _git("rev-parse", "HEAD", at=repository)
        changed = _git("status", "--porcelain", "--", *CODE, at=repository)
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+dirty" if changed else "")


def packages() -> dict[str, str]:
    """Versions of Python and of the packages that compute; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, object]:
    """CPU model, usable cores, torch threads, main memory (GB), names of the GPUs."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def cpu_model() -> str:
    """The processor's model name, or its architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may use (a container may allow fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_mb() -> float:
    """Largest resident memory of this process since it started, in MB (2^20 bytes).

    Since the process started, not since the run did: give each measured run its own process.
    """
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    status = Path("/proc/self/status")  # Linux, where getrusage starts at the parent's peak
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    import resource  # exists on Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def reset_peak_gpu_memory() -> None:
    """Let `peak_gpu_memory_mb` forget what was allocated and freed before."""
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(i)


def peak_gpu_memory_mb() -> float | None:
    """Largest memory that torch allocated on one GPU since the last reset, in MB; None without."""
    if not torch.cuda.is_available():
        return None
    return max(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())) / 2**20


def _git(*arguments: str, at: Path) -> str:
    return subprocess.run(
        ["git", "-C", str(at), *arguments], check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()
