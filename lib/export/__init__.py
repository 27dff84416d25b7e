"""Models as files: a student's weights for this project, ONNX for others, 8 bits for small machines."""

from lib.export.card import ModelCard, ModelFileError
from lib.export.int8 import quantise_int8
from lib.export.logits import FixedModality, Logits
from lib.export.onnx import export_onnx
from lib.export.onnx_model import OnnxModel

__all__ = [
    "FixedModality",
    "Logits",
    "ModelCard",
    "ModelFileError",
    "OnnxModel",
    "export_onnx",
    "quantise_int8",
]
