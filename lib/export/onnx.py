"""A model as an ONNX file that runs without PyTorch, checked against the model before it counts."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from lib.export.card import ModelCard, ModelFileError, names_of
from lib.export.logits import Logits, try_size
from lib.export.onnx_model import OnnxModel
from lib.files import replacing
from lib.models.inference import inference

TOLERANCE = 1e-4  # of logits up to 1; of larger ones relative to the largest
# A model may hold thresholds: do two networks disagree here? Where a probability is 1/2 to the last
# digit, the answer depends on rounding, and the few pixels around it with the answer.
TOLERATED_SHARE = 0.01
OPSET = 18


def export_onnx(
    model: nn.Module,
    path: Path | str,
    *,
    size: int,
    class_names: Sequence[str] | None = None,
    method: str = "",
    opset: int = OPSET,
) -> Path:
    """Write `model` as ONNX and make sure that ONNX Runtime computes the same.

    The file takes "image", `B x 3 x size x size` in [0, 1] with any B, and gives "logits". It says
    of itself what `ModelCard` holds.

    Args:
        model: a network, KnowSAM's students, or a training method, of which `predict` is exported
            and nothing else; for ESP-MedSAM a `FixedModality`. It stays as it is.
        path: of the file; its folder is made, and an older file replaced.
        size: side of the images in pixels.
        class_names: background first; None for plain names.
        method: what trained the model, for the file's card; with a `FixedModality` name the
            modality too, such as "ESP-MedSAM, xray".
        opset: version of ONNX's operators.

    Returns:
        `path`.

    Raises:
        ModelFileError: if the model cannot be expressed in ONNX, or the file computes something
            else than the model; no file is left then.
        ValueError: if the model does not take images of that size, has other classes, or is an
            ESP-MedSAM that was told no modality.
    """
    network = Logits(model)
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = try_size(network, images)
    card = ModelCard(size=size, class_names=names_of(expected.shape[1], class_names), method=method)
    with inference(network), replacing(path) as temporary:
        try:
            # Two images in the trace: with one, an axis of length 1 might be taken for no axis.
            _trace(network, images[:2], temporary, opset)
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise ModelFileError(
                f"{type(model).__name__} cannot be written as ONNX (opset {opset}): {error}"
            ) from error
        write_metadata(temporary, card.to_metadata())
        _require_equal(OnnxModel(temporary), images, expected)
    return Path(path)


def write_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Check an ONNX file and add `metadata` to it."""
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    onnx.helper.set_model_props(graph, dict(metadata))
    onnx.save(graph, path)


def _trace(network: nn.Module, images: Tensor, path: Path, opset: int) -> None:
    """PyTorch's exporter by tracing.

    The newer one (`dynamo=True`) takes some ten times as long for the models here and gains them
    nothing. What tracing may get wrong, such as taking the batch's length for a constant,
    `_require_equal` finds.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of both kinds: old exporter, constants in the trace
        torch.onnx.export(
            network,
            (images.to(device),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )


def _require_equal(exported: OnnxModel, images: Tensor, expected: Tensor) -> None:
    """Compare a batch of one and of all images; the trace had neither length."""
    for count in (1, len(images)):
        try:
            found = exported(images[:count])
        except ModelFileError as error:
            raise ModelFileError(f"the exported model fails on {count} images: {error}") from error
        difference = (found - expected[:count]).abs().amax(dim=1)
        allowed = TOLERANCE * max(1.0, expected.abs().max().item())
        wrong = (~(difference <= allowed)).float().mean().item()  # NaN is wrong as well
        if not wrong <= TOLERATED_SHARE:
            raise ModelFileError(
                f"the exported model differs from the original by up to {difference.max():.2g} "
                f"({wrong:.0%} of the pixels of {count} images by more than {allowed:.1g}): it may "
                "do what tracing cannot follow, such as branches that depend on the image"
            )
