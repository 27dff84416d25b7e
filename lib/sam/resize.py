"""Move a SAM to another image size: its position tables and the sizes that its parts know.

SAM was trained at 1024 px, which is 64 x 64 tokens of 16 px. At 256 px there are 16 x 16. What
depends on that number is

* the absolute position table of the encoder, one vector a token;
* the two relative tables (rows, columns) of each **global** attention block, one vector a
  distance, so 2 x 64 - 1 of them at 1024 px. Window blocks always see 14 x 14 tokens and keep
  their 27 distances;
* the sizes that the prompt encoder divides coordinates by, and the size of a mask prompt.

Weights that do not depend on it (all others) stay as they are.
"""

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from timm.layers import resample_abs_pos_embed_nhwc
from torch import Tensor, nn


def resize_positions(sam: Sam, image_size: int, *, relative: bool = True) -> Sam:
    """Make `sam` take images of `image_size` x `image_size` px; changes `sam` and returns it.

    Args:
        sam: any `segment_anything` model, its encoder's tables filled or on the meta device.
        image_size: new side in px, a multiple of the patch size (16): 1024, 512, 256, ...
        relative: True resizes the relative tables as segment-anything's own `get_rel_pos` does
            (linear). False sets the relative tables of **all** blocks to zero, which is the same
            as leaving them out: released code that drops them does this, silently, and the
            embedding is then another one.

    Raises:
        ValueError: `image_size` is no positive multiple of the patch size.
    """
    encoder = sam.image_encoder
    patch = patch_size(sam)
    if image_size <= 0 or image_size % patch:
        raise ValueError(
            f"image_size={image_size}: SAM cuts the image into patches of {patch} px; choose a "
            f"multiple of {patch}, such as 1024, 512 or 256"
        )
    tokens = image_size // patch
    if encoder.pos_embed is not None:
        encoder.pos_embed = _like(
            encoder.pos_embed, resize_absolute(encoder.pos_embed.detach(), tokens)
        )
    for block in encoder.blocks:
        attention = block.attn
        if not attention.use_rel_pos:
            continue
        for name in ("rel_pos_h", "rel_pos_w"):
            table = getattr(attention, name)
            resized = table.detach()
            if block.window_size == 0:  # global attention: distances across the whole image
                resized = resize_relative(resized, tokens)
            if not relative:
                resized = torch.zeros_like(resized)
            setattr(attention, name, _like(table, resized))
        attention.use_rel_pos = relative  # adding zeros takes as long as adding anything else
    encoder.img_size = image_size
    prompts = sam.prompt_encoder
    prompts.input_image_size = (image_size, image_size)
    prompts.image_embedding_size = (tokens, tokens)
    prompts.mask_input_size = (4 * tokens, 4 * tokens)  # the decoder upscales the tokens by 4
    return sam


def patch_size(sam: Sam) -> int:
    """Return the side in px of the square that one token stands for (16 in every SAM)."""
    return sam.image_encoder.img_size // sam.prompt_encoder.image_embedding_size[0]


def resize_absolute(table: Tensor, tokens: int) -> Tensor:
    """Resize an absolute position table, 1 x h x w x C -> 1 x tokens x tokens x C.

    Bicubic with antialiasing, as timm resizes the tables of its vision transformers.
    """
    if table.shape[1:3] == (tokens, tokens):
        return table
    return resample_abs_pos_embed_nhwc(table, [tokens, tokens])


def resize_relative(table: Tensor, tokens: int) -> Tensor:
    """Resize a relative position table, L x C -> (2 * tokens - 1) x C.

    Row tokens - 1 is distance 0 and stays the centre. Linear, the rule of segment-anything's
    `get_rel_pos`, so that a resized model equals the one that interpolates on the fly.
    """
    length = 2 * tokens - 1
    if len(table) == length:
        return table
    return F.interpolate(table.T[None], size=length, mode="linear")[0].T.contiguous()


def _like(old: nn.Parameter, values: Tensor) -> nn.Parameter:
    """Return `values` as a parameter that is trained if `old` was."""
    return nn.Parameter(values, requires_grad=old.requires_grad)
