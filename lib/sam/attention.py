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
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import Tensor

from lib.windows import map_windows, padding_mass


class FusedAttention(Attention):
    """`segment_anything`'s encoder attention through `scaled_dot_product_attention`.

    With a `window_size` above 0 it takes the whole grid and attends within its windows, as if
    incomplete ones were filled with tokens of the value `padding` (zero unless one is set); see
    `lib.windows`.
    """

    window_size = 0

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each B x H x W x C grid of tokens; the output has the same shape."""
        qkv = self.qkv(x)
        if self.window_size > 0:
            return self.proj(map_windows(qkv, self.window_size, self._attend))
        return self.proj(self._attend(qkv))

    def _attend(self, qkv: Tensor) -> Tensor:
        """From queries, keys and values B x H x W x 3C to B x H x W x C."""
        batch, height, width, _ = qkv.shape
        q, k, v = self._heads(qkv)
        channels, scale = q.shape[-1], self.scale
        size = self.window_size
        if height * width < size * size:
            q, k, v = self._with_padding(q, k, v, height, width)
            scale = 1.0  # in the queries already
        elif self.use_rel_pos:
            q, k, v = self._with_positions(q, k, v, height, width)
            scale = 1.0
        out = F.scaled_dot_product_attention(q, k, v, scale=scale)[..., :channels]
        return out.transpose(1, 2).reshape(batch, height, width, -1)

    def _heads(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values, each batch x heads x tokens x channels of a head."""
        batch, tokens = qkv.shape[0], qkv.shape[1] * qkv.shape[2]
        return qkv.reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)

    def _with_positions(
        self, q: Tensor, k: Tensor, v: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Append height + width channels that make q . k contain the relative positions."""
        rows, columns = self._position_logits(q, height, width, (height, width))
        q = torch.cat([q * self.scale, rows, columns], dim=-1)
        one_hot = _one_hot(height, width, k).expand(*k.shape[:2], -1, -1)
        k = torch.cat([k, one_hot], dim=-1)
        # The fused CPU kernel wants values as wide as keys; the caller cuts the zeros off again.
        return q, k, F.pad(v, (0, height + width))

    def _with_padding(
        self, q: Tensor, k: Tensor, v: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Append the token that stands for a window's padding, and the channels for its logit."""
        size, (batch, _, tokens, channels) = self.window_size, q.shape
        token = getattr(self, "padding", None)
        if token is None:
            token = self.qkv.weight.new_zeros(self.qkv.in_features)
        _, k_padding, v_padding = self._heads(self.qkv(token.reshape(1, 1, 1, -1)))
        scaled = q * self.scale
        logit = scaled @ k_padding.mT
        if self.use_rel_pos:
            rows, columns = self._position_logits(q, height, width, (size, size))
            logit = logit + padding_mass(rows, columns, (height, width), size).unsqueeze(-1)
            scaled = torch.cat([scaled, rows[..., :height], columns[..., :width]], dim=-1)
            positions = _one_hot(height, width, k)
        else:
            logit = logit + padding_mass(None, None, (height, width), size)
            positions = k.new_zeros(tokens, 0)
        q = torch.cat([scaled, logit.to(q.dtype)], dim=-1)
        # The last channel is 1 for the padding alone, all others are 0 there.
        added = F.pad(positions, (0, 1)).expand(*k.shape[:2], -1, -1)
        padding = F.one_hot(torch.tensor(q.shape[-1] - 1, device=k.device)).to(k.dtype)
        k = torch.cat([torch.cat([k, added], dim=-1), padding.expand(*k.shape[:2], 1, -1)], dim=2)
        v = torch.cat([v, v_padding.expand(batch, -1, -1, -1)], dim=2)
        return q, k, F.pad(v, (0, q.shape[-1] - channels))

    def _position_logits(
        self, q: Tensor, height: int, width: int, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """q . R for every row and column of a window of `size`, batch x heads x tokens x size."""
        grid = q.unflatten(2, (height, width))
        rows = get_rel_pos(size[0], size[0], self.rel_pos_h)[:height].to(q.dtype)
        columns = get_rel_pos(size[1], size[1], self.rel_pos_w)[:width].to(q.dtype)
        row_logits = torch.einsum("bnhwc,hkc->bnhwk", grid, rows).flatten(2, 3)
        return row_logits, torch.einsum("bnhwc,wkc->bnhwk", grid, columns).flatten(2, 3)


class UnpaddedBlock(Block):
    """segment-anything's encoder block with an attention that cuts the windows itself."""

    def forward(self, x: Tensor) -> Tensor:
        """B x H x W x C tokens of the image, none of padding, to the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def use_fused_attention(encoder: ImageEncoderViT) -> ImageEncoderViT:
    """Let every attention block of `encoder` run fused, windows without padding; returns it.

    Parameters, state-dict keys and output stay the same (to rounding: 1e-6 in float32). Blocks
    that are no plain segment-anything `Attention` (subclasses of other code) are left alone.
    """
    for block in encoder.modules():
        if type(block) is Block and type(block.attn) is Attention and block.window_size > 0:
            block.__class__ = UnpaddedBlock
            block.attn.window_size = block.window_size
    # The class is swapped, not the bound `forward`: a bound method would still point at the old
    # module in a deep copy, such as a moving-average teacher.
    for module in encoder.modules():
        if type(module) is Attention:
            module.__class__ = FusedAttention
    return encoder


def _one_hot(height: int, width: int, like: Tensor) -> Tensor:
    """For each token of a grid a 1 at its row and a 1 at its column: tokens x (height + width)."""
    token = torch.arange(height * width, device=like.device)
    rows, columns = F.one_hot(token // width, height), F.one_hot(token % width, width)
    return torch.cat([rows, columns], dim=-1).to(like.dtype)
