"""A SAM of segment-anything's own classes that is small enough to build in every test."""

from functools import partial
from types import SimpleNamespace

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

WIDTH = 32


def tiny_sam(image_size=256, *, seed=0, relative=True):
    """Two blocks, windows of 14 tokens in the first, the second global; all tables filled."""
    tokens = image_size // 16
    sam = Sam(
        ImageEncoderViT(
            img_size=image_size,
            embed_dim=WIDTH,
            depth=2,
            num_heads=4,
            out_chans=WIDTH,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=relative,
            window_size=14,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(WIDTH, (tokens, tokens), (image_size, image_size), 16),
        MaskDecoder(
            transformer_dim=WIDTH,
            transformer=TwoWayTransformer(2, WIDTH, num_heads=4, mlp_dim=64),
            iou_head_hidden_dim=WIDTH,
        ),
    )
    fill(sam, seed)
    positions = sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix  # a buffer
    positions.copy_(torch.randn(positions.shape, generator=torch.Generator().manual_seed(seed)))
    return sam.eval()


def fill(module, seed):
    """Overwrite all weights with a seeded draw wide enough that every term matters."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        spread = 0.5 if parameter.ndim < 2 else 1.5 / parameter[0].numel() ** 0.5
        nn.init.normal_(parameter, std=spread, generator=generator)
    for name, parameter in module.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            nn.init.normal_(parameter, std=0.5, generator=generator)


def prompt(points=None, labels=None, box=None, mask_logits=None):
    """A prompt with the four attributes that the decoder reads."""

    def tensor(values, dtype=torch.float32):
        return None if values is None else torch.as_tensor(values, dtype=dtype)

    return SimpleNamespace(
        points=tensor(points),
        labels=tensor(labels, torch.int64),
        box=tensor(box),
        mask_logits=tensor(mask_logits),
    )
