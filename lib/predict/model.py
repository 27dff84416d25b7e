"""A model from its file, whatever kind it is."""

from pathlib import Path

from lib.devices import best_device, has_bfloat16
from lib.export.card import ModelFileError
from lib.export.onnx_model import OnnxModel
from lib.export.student import Student, load_student

PRECISIONS = ("auto", "float32", "bfloat16")


def load_model(
    path: Path | str, *, device: str = "auto", precision: str = "float32"
) -> Student | OnnxModel:
    """A `lib.export.Student` (.safetensors) or `OnnxModel` (.onnx), by the file's ending.

    Args:
        path: of the file.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "mps"; ONNX models run on the CPU.
        precision: one of `PRECISIONS`. bfloat16 is faster where the hardware computes in it, and
            gives a few pixels at outlines another class; "auto" takes it there. ONNX models
            compute as they were exported.

    Raises:
        ModelFileError: a file that cannot be used, a device that this machine does not have, or
            bfloat16 for an ONNX model.
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    path = Path(path)
    if path.suffix == ".onnx":
        if device not in ("auto", "cpu"):
            raise ModelFileError(f"{path}: ONNX models run on the CPU here, not on {device}")
        if precision == "bfloat16":
            raise ModelFileError(f"{path}: ONNX models compute as exported; leave out bfloat16")
        return OnnxModel(path)
    if path.suffix != ".safetensors":
        raise ModelFileError(
            f"{path} is neither .safetensors (lib.export.save_student) nor .onnx "
            "(lib.export.export_onnx)"
        )
    if device == "auto":
        device = best_device()
    try:
        half = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
        return load_student(path, device=device, half=half)
    except (RuntimeError, AssertionError) as error:  # PyTorch's, for a device that is not there
        raise ModelFileError(f"device {device!r} cannot be used ({error}): try cpu") from error
