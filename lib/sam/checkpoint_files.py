"""Read a file of weights without trusting it: tensors only, and a plain word on what is wrong.

PyTorch's own format is a pickle, and a pickle can run code when it is opened. So everything is
read with ``weights_only=True``, and a file that needs more is refused.
"""

import pickle
import re
import zipfile
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Training scripts save the weights under one of these names, beside optimiser and epoch.
WRAPPERS = ("model", "state_dict", "model_state_dict")
# What PyTorch and pickle say of a file in the old format (no zip) whose end is missing.
ENDS_EARLY = ("truncated", "Ran out of input", "unexpected EOF")
LFS_POINTER = b"version https://git-lfs"


class WeightsError(ValueError):
    """A file of weights that cannot be used; the message says what it is and what to do."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the weights in `path`, a PyTorch file (``.pth``, ``.pt``) or ``.safetensors``.

    A state dict inside ``{"model": ...}`` and the like is unwrapped, and the prefix ``module.``
    that data-parallel training leaves is taken off the names. PyTorch's zip files are mapped
    into memory, not read: copy what you keep.

    Raises:
        WeightsError: missing, empty, truncated, not a file of weights (a web page, a Git-LFS
            pointer, an archive), or a pickle that holds more than tensors.
    """
    path = Path(path)
    kind = _kind(path)
    content = _read_safetensors(path) if kind == "safetensors" else _read_torch(path, kind)
    return _state_dict(content, path)


def _kind(path: Path) -> str:
    """Return "safetensors", "zip" or "pickle" by the first bytes; refuse everything else."""
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise WeightsError(
            f"{path} {what}. SAM's official checkpoints are downloaded by "
            "`python -m data_scripts.checkpoints vit_b` (or vit_l, vit_h)"
        )
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise WeightsError(f"{path} is empty; download it again")
    if head.startswith(LFS_POINTER):
        raise WeightsError(
            f"{path} is a Git-LFS pointer (a few lines of text), not the weights it points to; "
            "fetch them with `git lfs pull`"
        )
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise _truncated(path)
        try:
            broken = zipfile.ZipFile(path).testzip()  # PyTorch does not look at the checksums
        except (zipfile.BadZipFile, zlib.error) as error:
            broken = str(error)
        if broken:
            raise WeightsError(f"{path} is damaged ({broken}); download or copy it again")
        return "zip"
    # safetensors: 8 bytes with the length of the header, then the header, which is JSON
    if path.suffix == ".safetensors" or head[8:10] == b'{"':
        return "safetensors"
    if head.startswith(b"\x80"):
        return "pickle"
    raise WeightsError(
        f"{path} holds {_describe(head)}, not weights: expected a PyTorch file (.pth) or "
        ".safetensors. If a download wrote it, open it in an editor to see what the server said"
    )


def _describe(head: bytes) -> str:
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML)"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "text"
    return "no known format"


def _read_safetensors(path: Path) -> dict:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is no complete safetensors file ({error}); download it again"
        ) from error


def _read_torch(path: Path, kind: str) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error)
        if isinstance(error, EOFError) or any(word in reason for word in ENDS_EARLY):
            raise _truncated(path) from error
        if isinstance(error, pickle.UnpicklingError):
            found = re.search(r"GLOBAL ([\w.]+)", reason)
            objects = f"({found[1]}) " if found else ""
            raise WeightsError(
                f"{path} is refused: besides tensors it holds Python objects {objects}and "
                "opening those can run any code. Ask for a plain state dict or .safetensors"
            ) from error
        raise WeightsError(
            f"{path} is no PyTorch checkpoint ({reason.splitlines()[0][:200]})"
        ) from error


def _truncated(path: Path) -> WeightsError:
    size = path.stat().st_size
    return WeightsError(
        f"{path} is truncated: its end is missing ({size:,} bytes are there); download it again"
    )


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """Unwrap, strip ``module.``, and make sure that what remains is names with tensors."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    is_state = isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
    if not is_state or not content:
        found = f"the entries {list(content)[:5]}" if isinstance(content, dict) else "no names"
        raise WeightsError(
            f"{path} holds {found}, but a state dict (names with tensors) is needed, plain or "
            f"under one of {', '.join(WRAPPERS)}"
        )
    return {name.removeprefix("module."): value for name, value in content.items()}
