"""The small SAM: segment-anything's own classes at a size that a laptop can pretrain.

Its one departure from the original is the patch embedding: four strided 3 x 3 convolutions
replace the single 16 x 16 one. Both map `B x 3 x H x W` to `B x H/16 x W/16 x C`; the stack of
small filters learns from few images what one large filter does not.
"""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

from safetensors.torch import load_file
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

from lib.sam.checkpoint_files import WeightsError

WEIGHTS = Path(__file__).resolve().parents[2] / "weights" / "small_sam.safetensors"
IMAGE_SIZE = 256
PATCH = 16


class ConvolutionalPatchEmbed(nn.Module):
    """`B x 3 x H x W` to `B x H/16 x W/16 x channels` by four convolutions of stride 2."""

    def __init__(self, channels):
        """`channels`: width of the tokens, a multiple of 12."""
        super().__init__()
        widths = (3, channels // 6, channels // 3, channels * 2 // 3, channels)
        layers = []
        for before, after in pairwise(widths):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(1 if after < 64 else 4, after),
                nn.GELU(),
            ]
        self.proj = nn.Sequential(*layers[:-2])

    def forward(self, image):
        """Embed a batch of normalised images."""
        return self.proj(image).permute(0, 2, 3, 1)


def build_small_sam(*, width=192, depth=6, heads=6, prompt_width=128):
    """An untrained small SAM (`segment_anything.modeling.Sam`) for 256 x 256 px images.

    `width`, `depth`, `heads`: of the image encoder's transformer, all of whose blocks attend
    globally over 16 x 16 tokens; `prompt_width`: channels of embedding, prompts and decoder.
    """
    tokens = IMAGE_SIZE // PATCH
    encoder = ImageEncoderViT(
        img_size=IMAGE_SIZE,
        patch_size=PATCH,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        out_chans=prompt_width,
        use_rel_pos=True,
        window_size=0,
        norm_layer=lambda features: nn.LayerNorm(features, eps=1e-6),
    )
    encoder.patch_embed = ConvolutionalPatchEmbed(width)
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    sam = Sam(
        image_encoder=encoder,
        prompt_encoder=PromptEncoder(
            embed_dim=prompt_width,
            image_embedding_size=(tokens, tokens),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=prompt_width, mlp_dim=4 * prompt_width, num_heads=8
            ),
            transformer_dim=prompt_width,
            iou_head_depth=3,
            iou_head_hidden_dim=prompt_width,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    return sam.eval()


def parameter_count(module):
    """Number of values in all parameters of `module`, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_small_sam(weights=WEIGHTS):
    """The shipped small SAM in eval mode.

    `weights`: the safetensors file, by default the shipped one, or another that
    `lib.training.small_sam_run` wrote; its SHA-256 must be the one in the JSON card beside it.

    Raises `WeightsError` if the file or its card is missing, or they do not belong together.
    """
    weights = Path(weights)
    card = weights.with_suffix(".json")
    remedy = "copy both again from the folder that `python -m lib.training.small_sam_run` wrote"
    if weights.resolve() == WEIGHTS.resolve():
        remedy = "restore both with `git checkout weights`"
    if not weights.is_file() or not card.is_file():
        raise WeightsError(f"{weights} and its card {card.name} must both be there: {remedy}")
    expected = json.loads(card.read_text(encoding="utf-8"))["sha256"]
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != expected:
        raise WeightsError(
            f"{weights} has SHA-256 {found[:12]}..., its card {card.name} says "
            f"{expected[:12]}...: one of them is damaged or was replaced; {remedy}"
        )
    sam = build_small_sam()
    sam.load_state_dict(load_file(weights))
    return sam
