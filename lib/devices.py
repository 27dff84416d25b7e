"""Which device computes: a GPU if there is one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def best_device() -> str:
    """Name of the GPU ("cuda" or "mps") if there is one, else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find_device(name: str) -> torch.device:
    """The device called `name`: "auto" (`best_device`), "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        ValueError: no such device, or none here.
    """
    try:
        device = torch.device(best_device() if name == "auto" else name)
    except RuntimeError:
        raise ValueError(
            f'device must be "auto", "cpu", "cuda", "cuda:1" or "mps", not {name!r}'
        ) from None
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise ValueError(f'device {name!r} is not available here; use device="auto" or "cpu"')
    return device


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether a device has instructions for bfloat16: GPUs of CUDA, and x86 CPUs, that have them.

    Elsewhere bfloat16 works as well, but we have not measured that it is faster.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        # Older releases of PyTorch cannot say what the processor has.
        found = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return False


@contextmanager
def moved(module: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Lend `module` to `device`; afterwards it is back where its first parameter was.

    So whoever trains or scores on a GPU leaves a module that works on CPU tensors as before.
    """
    home = next(module.parameters()).device
    module.to(device)
    try:
        yield
    finally:
        module.to(home)
