"""A model from its file, whatever kind it is."""

from pathlib import Path

import torch

from lib.export.card import ModelFileError
from lib.export.onnx_model import OnnxModel
from lib.export.student import Student, load_student


def load_model(path: Path | str, *, device: str = "auto") -> Student | OnnxModel:
    """A `lib.export.Student` (.safetensors) or `OnnxModel` (.onnx), by the file's ending.

    Args:
        path: of the file.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "mps"; ONNX models run on the CPU.

    Raises:
        ModelFileError: a file that cannot be used, or a device that this machine does not have.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        if device not in ("auto", "cpu"):
            raise ModelFileError(f"{path}: ONNX models run on the CPU here, not on {device}")
        return OnnxModel(path)
    if path.suffix != ".safetensors":
        raise ModelFileError(
            f"{path} is neither .safetensors (lib.export.save_student) nor .onnx "
            "(lib.export.export_onnx)"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return load_student(path, device=device)
    except (RuntimeError, AssertionError) as error:  # PyTorch's, for a device that is not there
        raise ModelFileError(f"device {device!r} cannot be used ({error}): try cpu") from error
