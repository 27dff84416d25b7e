"""A smaller and faster ONNX model: weights and activations in 8 bits.

Static quantisation as in Jacob et al. 2018, arXiv 1712.05877: real = scale (integer - zero point),
one scale a channel for weights, one a tensor for activations, the latter chosen from the range that
calibration images reach. Around each convolution the file holds a pair of QuantizeLinear and
DequantizeLinear, which ONNX Runtime fuses into integer arithmetic.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from lib.export.card import ModelFileError
from lib.export.onnx import write_metadata
from lib.export.onnx_model import OnnxModel
from lib.files import replacing

# What is worth it on a CPU, and what may pass integers on between two of them. Softmax, logarithm
# and thresholds, such as in KnowSAM's fusion, stay in float32: their fine differences decide.
OPERATORS = (
    "Conv", "ConvTranspose", "MatMul", "Gemm", "Relu", "Add", "MaxPool", "Concat", "Resize",
)  # fmt: skip


def quantise_int8(path: Path | str, output: Path | str, images: Tensor) -> Path:
    """Write the model in `path` with 8-bit weights and activations to `output`.

    Measure its accuracy afterwards: 8 bits change logits by far more than an export does.

    Args:
        path: of `lib.export.export_onnx`, in float32.
        output: of the new file; its folder is made, and an older file replaced.
        images: `B x 3 x size x size` in [0, 1] for calibration, some 16 to 64 of the training
            images; test images have no business here.

    Returns:
        `output`.

    Raises:
        ModelFileError: if `path` is no model of this project, or is quantised already.
        ValueError: no images, images of another size, or values outside [0, 1].
    """
    model = OnnxModel(path)
    if model.card.precision != "float32":
        raise ModelFileError(f"{path} is {model.card.precision} already: quantise the float32 one")
    if not len(images):
        raise ValueError("images is empty: calibration needs some 16 to 64 training images")
    if images.min() < 0 or images.max() > 1:
        raise ValueError(
            f"images must lie in [0, 1], not in [{images.min():g}, {images.max():g}]: the 8 bits "
            "would be spread over a range that no prediction has"
        )
    model(images[:1])  # the error of a wrong size is better here than from the calibration
    with replacing(output) as temporary, TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            temporary,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        write_metadata(temporary, replace(model.card, precision="int8").to_metadata())
        OnnxModel(temporary)(images[:1])
    return Path(output)


class _Calibration(CalibrationDataReader):
    """One image after the other: the activations of all images at once would fill the memory."""

    def __init__(self, images: Tensor):
        self._images = iter(images.detach().to("cpu", torch.float32).split(1))

    def get_next(self) -> dict | None:
        image = next(self._images, None)
        return None if image is None else {"image": image.contiguous().numpy()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to prepare the model, which is what was just done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
