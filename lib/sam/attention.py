"""Fused attention for SAM's image encoder: the same output without a tokens x tokens matrix.

segment-anything adds decomposed relative positions to the attention logits of each head:

    logit[i, j] = scale * q_i . k_j + q_i . R_h[row(i) - row(j)] + q_i . R_w[col(i) - col(j)]

and holds that matrix several times (805 MB each for ViT-B at 1024 px). For a query i the second
term takes only H values, one a row of keys, and the third only W, one a column. So both become
extra channels: the query carries its H + W values, the key a 1 at its row and a 1 at its column,
and everything else 0. One dot product then gives the whole sum,

    logit[i, j] = [scale * q_i, rel_h_i, rel_w_i] . [k_j, onehot(row(j)), onehot(col(j))]

and `scaled_dot_product_attention` can work block by block, forward and backward. Handing it the
sum of the two terms as `attn_mask` is as fast forward, but the mask is a full matrix again, and
because it needs a gradient PyTorch falls back to the unfused kernel in training.
"""

import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor


class FusedAttention(Attention):
    """`segment_anything`'s encoder attention through `scaled_dot_product_attention`."""

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each B x H x W x C grid of tokens; the output has the same shape."""
        batch, height, width, channels = x.shape
        heads, tokens = self.num_heads, height * width
        qkv = self.qkv(x).reshape(batch, tokens, 3, heads, channels // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each batch x heads x tokens x channels per head
        if self.use_rel_pos:
            q, k, v = self._with_positions(q, k, v, height, width)
            out = F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., : channels // heads]
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, channels))

    def _with_positions(
        self, q: Tensor, k: Tensor, v: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Append height + width channels that make q . k contain the relative positions."""
        grid = q.unflatten(2, (height, width))
        rows = get_rel_pos(height, height, self.rel_pos_h).to(q.dtype)
        columns = get_rel_pos(width, width, self.rel_pos_w).to(q.dtype)
        row_bias = torch.einsum("bnhwc,hkc->bnhwk", grid, rows).flatten(2, 3)
        column_bias = torch.einsum("bnhwc,wkc->bnhwk", grid, columns).flatten(2, 3)
        token = torch.arange(height * width, device=q.device)
        one_hot = torch.cat(
            [F.one_hot(token // width, height), F.one_hot(token % width, width)], dim=-1
        ).to(q.dtype)
        q = torch.cat([q * self.scale, row_bias, column_bias], dim=-1)
        k = torch.cat([k, one_hot.expand(*k.shape[:2], -1, -1)], dim=-1)
        # The fused CPU kernel wants values as wide as keys; the caller cuts the zeros off again.
        return q, k, F.pad(v, (0, height + width))


def use_fused_attention(encoder: ImageEncoderViT) -> ImageEncoderViT:
    """Let every attention block of `encoder` run fused; changes `encoder` and returns it.

    Parameters, state-dict keys and output stay the same (to rounding: 1e-6 in float32). Blocks
    that are no plain segment-anything `Attention` (subclasses of other code) are left alone.
    """
    return _swap(encoder, Attention, FusedAttention)


def use_original_attention(encoder: ImageEncoderViT) -> ImageEncoderViT:
    """Undo `use_fused_attention`."""
    return _swap(encoder, FusedAttention, Attention)


def _swap(encoder: ImageEncoderViT, old: type, new: type) -> ImageEncoderViT:
    # The class is swapped, not the bound `forward`: a bound method would still point at the old
    # module in a deep copy, such as a moving-average teacher.
    for module in encoder.modules():
        if type(module) is old:
            module.__class__ = new
    return encoder
