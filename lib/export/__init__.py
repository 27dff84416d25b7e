"""Models as files: a student's weights, ONNX for use without PyTorch, 8 bits for small machines."""

from lib.export.card import ModelCard, ModelFileError
from lib.export.int8 import quantise_int8
from lib.export.logits import FixedModality, Logits
from lib.export.onnx import export_onnx
from lib.export.onnx_model import OnnxModel
from lib.export.student import Student, load_student, save_student

__all__ = [
    "FixedModality",
    "Logits",
    "ModelCard",
    "ModelFileError",
    "OnnxModel",
    "Student",
    "export_onnx",
    "load_student",
    "quantise_int8",
    "save_student",
]
