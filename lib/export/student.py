"""A trained student as one file: weights, and in the file's header how to build their network.

safetensors holds tensors and text, so that opening a file runs no code.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lib.export.card import ModelCard, ModelFileError, names_of
from lib.export.logits import Logits, try_size
from lib.files import replacing
from lib.models.architectures import Architecture
from lib.models.inference import optimise_for_inference

ARCHITECTURE = "architecture"


class Student:
    """A trained network ready to predict: call it with images.

    network: from images to logits, in evaluation mode. card: its image size, classes and origin.
    architecture: what built it. half: whether it computes in bfloat16 where autocast says so.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        architecture: Architecture,
        *,
        half: bool = False,
    ):
        """Keep them."""
        self.network, self.card, self.architecture, self.half = network, card, architecture, half

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits `B x C x H x W` of images `B x 3 x H x W` in [0, 1], on the network's device.

        float32, in whatever type they were computed.
        """
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.network(images).float()


def save_student(
    path: Path | str,
    model: nn.Module,
    *,
    size: int,
    architecture: Architecture | None = None,
    class_names: Sequence[str] | None = None,
    method: str = "",
) -> Path:
    """Write what a prediction needs, and nothing else: no SAM, no optimiser.

        save_student("student.safetensors", knowsam, size=256)
        save_student(
            "student.safetensors",
            supervised.network,
            architecture=Architecture("unet_pp", {"encoder": "resnet18", "classes": 2}),
            size=256,
        )

    Args:
        path: of the file, NAME.safetensors; its folder is made, and an older file replaced.
        model: a KnowSAM or MC-seg; or a network, of another method the one that predicts.
        size: side in pixels of the images that it was trained on.
        architecture: what built the network; not needed for KnowSAM and MC-seg.
        class_names: background first; None for plain names.
        method: what trained it; by default the class of a KnowSAM or MC-seg.

    Returns:
        `path`.

    Raises:
        ValueError: if the path ends otherwise, the network is not what `architecture` builds, or
            there is none, or its logits are not finite.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{path} must end in .safetensors: by that a reader knows the format")
    network = getattr(model, "students", model)
    if architecture is None:
        if network is model:
            raise ValueError(
                "architecture is missing: give the network that predicts, such as "
                'method.network, and what built it, such as Architecture("unet_pp", '
                '{"encoder": "resnet18", "classes": 2})'
            )
        architecture = model.config.architecture()
        method = method or type(model).__name__
    tensors = _tensors(network)
    built = architecture.build()
    _require_same(tensors, _tensors(built), architecture)
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    logits = try_size(Logits(network), images)
    _take(tensors, built)
    if not torch.allclose(try_size(Logits(built), images), logits, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"{architecture} with these weights computes something else than the model: one of its "
            "arguments that has no weights of its own differs"
        )
    classes = logits.shape[1]
    card = ModelCard(size=size, class_names=names_of(classes, class_names), method=method)
    text = json.dumps({"name": architecture.name, "arguments": dict(architecture.arguments)})
    with replacing(path) as temporary:
        copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(copies, temporary, {**card.to_metadata(), ARCHITECTURE: text})
    return Path(path)


def load_student(
    path: Path | str,
    *,
    device: torch.device | str = "cpu",
    optimise: bool = True,
    half: bool = False,
) -> Student:
    """Read a file of `save_student`.

    Args:
        path: of the file.
        device: where to compute.
        optimise: fold BatchNorm into the convolutions, which changes logits by rounding alone;
            False for a network to be trained further.
        half: compute in bfloat16 where PyTorch's autocast says so; weights stay float32.

    Raises:
        ModelFileError: no such file, a damaged one, or not one of `save_student`.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path} does not exist or is no file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFileError(
            f"{path} is no whole safetensors file ({error}): save or copy it again"
        ) from error
    card = ModelCard.from_metadata(metadata, path)
    try:
        architecture = Architecture(**json.loads(metadata[ARCHITECTURE]))
        network = architecture.build()
        _require_same(saved, _tensors(network), architecture)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be built again: {error}") from error
    _take(saved, network)
    network = network.eval()
    network = Logits(optimise_for_inference(network) if optimise else network).eval()
    return Student(network.to(device), card, architecture, half=half)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Weights and all buffers: the normalisation of pretrained encoders is in no state dict."""
    return {**dict(network.named_buffers()), **network.state_dict()}


@torch.no_grad()
def _take(saved: dict[str, Tensor], network: nn.Module) -> None:
    for name, tensor in _tensors(network).items():
        tensor.copy_(saved[name])


def _require_same(
    found: dict[str, Tensor], expected: dict[str, Tensor], architecture: Architecture
) -> None:
    """Raise ValueError, naming a few tensors, unless all names and shapes are equal."""
    shapes, wanted = ({n: tuple(t.shape) for n, t in d.items()} for d in (found, expected))
    wrong = [
        f"{name}: {shapes.get(name, 'absent')} instead of {wanted.get(name, 'none')}"
        for name in sorted(shapes.keys() | wanted.keys())
        if shapes.get(name) != wanted.get(name)
    ]
    if wrong:
        raise ValueError(
            f"the weights are not those of {architecture}; {len(wrong)} tensors differ, such as "
            + ", ".join(wrong[:3])
        )
