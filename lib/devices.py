"""Which device computes: a GPU if there is one."""

import torch


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
