"""MobileSAM's image encoder in the student: every key accounted for, nothing filled in silently.

MobileSAM (Zhang et al. 2023, arXiv 2306.14289) distilled SAM's ViT-H into TinyViT-5M; its encoder
is where the released ESP-MedSAM starts. Its file `mobile_sam.pt` names the layers otherwise than
timm and holds a whole SAM; this takes the encoder and its neck.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from lib.models.tiny_vit import TinyVitEncoder

PREFIX = "image_encoder."
# Left over from TinyViT's classification; the encoder of an embedding has no use for them.
UNUSED = ("norm_head.", "head.")
# Tables that TinyViT derives from its sizes; some files hold them.
DERIVED = (".attention_bias_idxs", ".attn.ab")


def load_mobile_sam(encoder: TinyVitEncoder, state: Mapping[str, Tensor]) -> None:
    """Copy MobileSAM's encoder into backbone and neck of `encoder`; its controllers stay.

    Args:
        encoder: of TinyViT-5M's shape and width 256.
        state: tensors of `mobile_sam.pt` (read with `lib.sam.checkpoint_files.read_state_dict`),
            of the whole model or of its image encoder alone.

    Raises:
        ValueError: if a tensor is missing, unexpected or of another shape; `encoder` is unchanged.
    """
    if any(key.startswith(PREFIX) for key in state):
        state = {key[len(PREFIX) :]: t for key, t in state.items() if key.startswith(PREFIX)}
    found = {
        timm_name(key): tensor
        for key, tensor in state.items()
        if not key.startswith(UNUSED) and not key.endswith(DERIVED)
    }
    parts = {"backbone": encoder.backbone.state_dict(), "neck": encoder.neck.state_dict()}
    expected = {f"{part}.{key}": t for part, tensors in parts.items() for key, t in tensors.items()}
    problems = {
        "missing": [key for key in expected if key not in found],
        "unexpected": [key for key in found if key not in expected],
        "of another shape": [
            f"{key} {tuple(found[key].shape)} instead of {tuple(tensor.shape)}"
            for key, tensor in expected.items()
            if key in found and found[key].shape != tensor.shape
        ],
    }
    lines = [
        f"{len(keys)} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for what, keys in problems.items()
        if keys
    ]
    if lines:
        raise ValueError(
            "these weights are not MobileSAM's for this encoder; tensors " + "; ".join(lines)
        )
    for part, tensors in parts.items():
        getattr(encoder, part).load_state_dict({key: found[f"{part}.{key}"] for key in tensors})


def timm_name(key: str) -> str:
    """The name in this project of a tensor of MobileSAM's image encoder.

    A merging of tokens closes a stage there and opens the next one in timm.
    """
    if key.startswith("neck."):
        return key
    merging = re.fullmatch(r"layers\.(\d)\.downsample\.(.+)", key)
    if merging:
        key = f"stages_{int(merging[1]) + 1}.downsample.{merging[2]}"
    key = re.sub(r"^layers\.(\d)\.", r"stages_\1.", key)
    key = key.replace("patch_embed.seq.0.", "patch_embed.conv1.")
    key = key.replace("patch_embed.seq.2.", "patch_embed.conv2.")
    return "backbone." + re.sub(r"\.c\.", ".conv.", key)
