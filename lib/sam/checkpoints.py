"""Load a SAM: Meta's ViT-B, ViT-L and ViT-H, fine-tuned relatives, and this project's small one."""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from lib.sam.attention import use_fused_attention
from lib.sam.checkpoint_files import WeightsError, read_state_dict
from lib.sam.resize import patch_size, resize_positions
from lib.sam.small import WEIGHTS, build_small_sam, load_small_sam


class Official(NamedTuple):
    """A checkpoint as Meta published it, and the encoder it belongs to."""

    file: str
    sha256: str
    width: int
    depth: int


OFFICIAL = {
    "vit_b": Official(
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        width=768,
        depth=12,
    ),
    "vit_l": Official(
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        width=1024,
        depth=24,
    ),
    "vit_h": Official(
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        width=1280,
        depth=32,
    ),
}
NAMES = (*OFFICIAL, "small")


def load_sam(
    name: str,
    checkpoint: str | Path | None = None,
    *,
    image_size: int | None = None,
    fused_attention: bool = True,
    relative_positions: bool = True,
    untrained: bool = False,
) -> Sam:
    """Load a `segment_anything` model in eval mode on the CPU, in float32.

    Args:
        name: "vit_b", "vit_l" or "vit_h" (Meta's, or a fine-tuned relative of that size such as
            MedSAM), or "small": the SAM that this project trained and ships.
        checkpoint: file of weights, ``.pth`` or ``.safetensors``. "small" needs none.
        image_size: side in px of the square that the encoder sees, a multiple of 16; position
            tables are resized. None keeps the checkpoint's own (1024, or 256 for "small").
        fused_attention: run the encoder's attention through PyTorch's fused kernel: same
            output, less time and memory. False keeps segment-anything's own.
        relative_positions: False sets the relative position tables to zero, as released code
            that drops them does; see `lib.sam.resize`.
        untrained: build the network with random weights, without a checkpoint, for tests and
            benchmarks. Its position tables are zero, as segment-anything starts them.

    Raises:
        ValueError: unknown name, or an image size that is no multiple of the patch size.
        WeightsError: the file is missing, damaged, of another model, or holds code.
    """
    if name not in NAMES:
        raise ValueError(f"unknown SAM {name!r}: choose one of {', '.join(NAMES)}")
    if untrained and checkpoint is not None:
        raise ValueError("give a checkpoint or untrained=True, not both")
    if untrained:
        sam = _builder(name)()
    elif checkpoint is not None:
        sam = _load(name, Path(checkpoint).expanduser())
    elif name == "small":
        sam = load_small_sam()
    else:
        raise WeightsError(
            f"load_sam({name!r}) needs a checkpoint: get it with `python -m "
            f"data_scripts.checkpoints {name}` and pass the path of {OFFICIAL[name].file}; "
            "load_sam('small') needs none, and untrained=True gives random weights"
        )
    size = sam.image_encoder.img_size if image_size is None else image_size
    resize_positions(sam, size, relative=relative_positions)
    if fused_attention:
        use_fused_attention(sam.image_encoder)
    return sam.eval()


def _refuse_broken_numbers(state: dict[str, Tensor], path: Path) -> None:
    whole = [name for name, value in state.items() if not value.is_floating_point()]
    broken = whole or [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        what = "whole numbers, as quantised weights have" if whole else "values that are not finite"
        raise WeightsError(
            f"{path} holds {what} ({', '.join(broken[:3])}, {len(broken)} tensors): give the "
            "weights in floating point, as they were trained"
        )


def sam_label(name: str, checkpoint: str | Path | None = None) -> str:
    """Which weights a record was made with, such as "small (1ab7081d)": SHA-256 of the file.

    Raises:
        WeightsError: no file is named for a SAM that this project does not ship, or none there.
    """
    if checkpoint is None and name != "small":
        raise WeightsError(f"{name} needs the file of its weights: name it as the checkpoint")
    if checkpoint is not None and not Path(checkpoint).expanduser().is_file():
        raise WeightsError(f"{checkpoint} does not exist or is no file")
    with (WEIGHTS if checkpoint is None else Path(checkpoint).expanduser()).open("rb") as file:
        return f"{name} ({hashlib.file_digest(file, 'sha256').hexdigest()[:8]})"


def _builder(name: str) -> Callable[[], Sam]:
    return build_small_sam if name == "small" else sam_model_registry[name]


def _load(name: str, path: Path) -> Sam:
    """Build the network without memory for its weights, then take those of `path`."""
    state = read_state_dict(path)
    _refuse_other_model(name, state, path)
    with torch.device("meta"):
        sam = _builder(name)()
    # A checkpoint may have been trained at another size than the builder's: take its own.
    tokens = state["image_encoder.pos_embed"].shape[1]
    resize_positions(sam, tokens * patch_size(sam))
    _refuse_other_tensors(name, sam.state_dict(), state, path)
    _refuse_broken_numbers(state, path)
    _warn_if_not_official(path)
    sam.load_state_dict(
        {key: value.to(torch.float32, copy=True) for key, value in state.items()}, assign=True
    )
    return sam


def _refuse_other_model(name: str, state: dict[str, Tensor], path: Path) -> None:
    """Raise if `state` is no SAM, or the SAM of another name."""
    positions = state.get("image_encoder.pos_embed")
    if positions is None or positions.ndim != 4:
        raise WeightsError(
            f"{path} is no SAM checkpoint: it has no image_encoder.pos_embed; its first names "
            f"are {', '.join(list(state)[:3])}"
        )
    width = positions.shape[-1]
    depth = len({key.split(".")[2] for key in state if key.startswith("image_encoder.blocks.")})
    for other, official in OFFICIAL.items():
        if (width, depth) == (official.width, official.depth) and other != name:
            raise WeightsError(
                f"{path} holds {other} (width {width}, {depth} blocks), but {name} was asked "
                f"for: call load_sam({other!r}, ...) or give the checkpoint of {name}"
            )


def _refuse_other_tensors(
    name: str, expected: dict[str, Tensor], state: dict[str, Tensor], path: Path
) -> None:
    """Raise unless `state` has exactly the names and shapes of the model."""
    differing = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    problems = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": differing,
    }
    lines = [
        f"{len(keys)} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for what, keys in problems.items()
        if keys
    ]
    if lines:
        raise WeightsError(f"{path} does not fit {name}; tensors " + "; ".join(lines))


def _warn_if_not_official(path: Path) -> None:
    """Warn when a file has an official name but other bytes.

    A warning, not an error: its tensors fit and no code was run, but results will not be those
    of Meta's weights.
    """
    for official in OFFICIAL.values():
        if path.name != official.file:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != official.sha256:
            warnings.warn(
                f"{path} has an official name but not the official content (SHA-256 "
                f"{found[:12]}..., expected {official.sha256[:12]}...): it was changed or "
                "damaged. Check it with `python -m data_scripts.checkpoints --check`",
                stacklevel=4,
            )
