"""Modality controllers: what one modality adds to the attention blocks of a shared encoder.

Xu et al. 2024 (ESP-MedSAM, arXiv 2407.14153); its equations were not open to us, so this follows
the authors' released code. In every block, with t a learned token and b a learned number,

    k' = [k; t],  v' = [v; t],  A = softmax(q k'^T / sqrt(d) + [relative bias, b])
    x = x + Proj(A v');  x = BN(DWConv(x));  x = x + MLP(x) + MLP_med(x)

Everything but t, b and MLP_med is shared by all modalities and belongs to timm's TinyViT.

That one fills incomplete windows with zeros, which become tokens of one key k' and one value v'.
For a query i they differ by their relative bias b_ij alone, and the softmax sees only the sum of
their exponentials: one token with the bias log(sum_j e^b_ij) stands for all of them, exactly.
"""

from collections.abc import Iterator, Sequence

import torch
from timm.models.tiny_vit import Attention, NormMlp, TinyVitBlock
from torch import Tensor, nn
from torch.nn import functional

from lib.tokens import new_tokens
from lib.windows import map_windows

Parts = Sequence[tuple[slice, "BlockController | None"]]


class BlockController(nn.Module):
    """Token, bias and MLP of one modality for one attention block."""

    def __init__(self, *, width: int, heads: int, separate_tokens: bool = False):
        """Draw new ones.

        Args:
            width: channels of the block. heads: attention heads, each of width / heads channels.
            separate_tokens: True learns one token for the keys and another for the values, as the
                paper's figure may be read; False one for both, as released.
        """
        super().__init__()
        shape = heads, 1, width // heads
        self.key = new_tokens(*shape)
        self.separate_value = new_tokens(*shape) if separate_tokens else None
        self.bias = nn.Parameter(torch.zeros(1))
        self.mlp = NormMlp(width, 4 * width)
        for layer in (self.mlp.fc1, self.mlp.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    @property
    def value(self) -> Tensor:
        """The token among the values, heads x 1 x channels a head."""
        return self.key if self.separate_value is None else self.separate_value


class ModalityController(nn.Module):
    """One modality's `BlockController` for each attention block, in the encoder's order."""

    def __init__(self, blocks: Sequence[tuple[int, int]], *, separate_tokens: bool = False):
        """`blocks`: (width, heads) of each attention block of the encoder."""
        super().__init__()
        self.blocks = nn.ModuleList(
            BlockController(width=width, heads=heads, separate_tokens=separate_tokens)
            for width, heads in blocks
        )


def run_block(block: TinyVitBlock, x: Tensor, parts: Parts) -> Tensor:
    """One TinyViT block on a batch whose samples lie in parts, each with its own controller.

    Args:
        block: timm's block; its weights are shared by all parts.
        x: B x H x W x C.
        parts: slices that cover 0..B in order, each with the controller of its modality, or with
            None for the block as timm runs it.

    Returns:
        B x H x W x C.
    """
    attended = _attend_in_windows(block.attn, x, parts, block.window_size)
    x = x + block.drop_path1(attended)
    x = block.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    common = block.drop_path2(block.mlp(x))
    if all(controller is None for _, controller in parts):
        return x + common
    own = [torch.zeros_like(x[rows]) if c is None else c.mlp(x[rows]) for rows, c in parts]
    return x + common + _joined(own)


def _attend_in_windows(attention: Attention, x: Tensor, parts: Parts, side: int) -> Tensor:
    """Attention within windows of `side` tokens, B x H x W x C to the same shape.

    As if zeros filled incomplete windows; only the image's own tokens are computed.
    """
    padding = attention.qkv(attention.norm(x.new_zeros(x.shape[-1])))

    def attend_to(windows: Tensor) -> Tensor:
        per_image, shape = windows.shape[0] // x.shape[0], windows.shape[1:3]
        own = [(_scaled(rows, per_image), controller) for rows, controller in parts]
        attended = attend(attention, windows.flatten(1, 2), own, shape, padding)
        return attended.reshape(windows.shape[0], *shape, -1)

    return attention.proj(map_windows(attention.qkv(attention.norm(x)), side, attend_to))


def attend(
    attention: Attention,
    qkv: Tensor,
    parts: Parts,
    shape: tuple[int, int] | None = None,
    padding: Tensor | None = None,
) -> Tensor:
    """Attention in windows, one token more where a part has a controller, without projections.

    timm caches the relative bias in evaluation mode; here it is looked up at every call, so that
    weights loaded in evaluation mode take effect.

    Args:
        attention: timm's; it knows heads, widths and relative bias.
        qkv: n x tokens x 3C, the windows after `attention.qkv`.
        parts: as in `run_block`, but slices of windows.
        shape: rows and columns of the windows, where they are smaller than the attention's.
        padding: 3C, the zeros that fill such windows, after `attention.qkv`.

    Returns:
        n x tokens x C, to be projected by `attention.proj`.
    """
    count, tokens, _ = qkv.shape
    q, k, v = _heads(attention, qkv)
    bias, others = _relative_bias(attention, shape)
    shared = []  # key, value and bias of what a window attends to besides its own tokens
    if others is not None:
        _, key, value = _heads(attention, padding[None, None])
        shared = [(key[0], value[0], others.logsumexp(dim=-1, keepdim=True))]
    attended = []
    split = zip(*(_split(x, parts) for x in (q, k, v)), strict=True)
    for (queries, keys, values), (_, controller) in zip(split, parts, strict=True):
        more = list(shared)
        if controller is not None:
            own = controller.bias.expand(*bias.shape[:2], 1)
            more.append((controller.key, controller.value, own))
        biases = torch.cat([bias, *(b for _, _, b in more)], dim=2).to(q.dtype)
        keys = _with_shared(keys, [key for key, _, _ in more])
        values = _with_shared(values, [value for _, value, _ in more])
        attended.append(_weighted(queries * attention.scale, keys, values, biases))
    return _joined(attended).transpose(1, 2).reshape(count, tokens, -1)


def _with_shared(tokens: Tensor, more: list[Tensor]) -> Tensor:
    """`more`, heads x 1 x channels each, behind the tokens of every window."""
    return torch.cat([tokens, *(one.expand(tokens.shape[0], -1, -1, -1) for one in more)], dim=2)


def _heads(attention: Attention, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each n x heads x tokens x channels of a head."""
    sizes = [attention.key_dim, attention.key_dim, attention.val_dim]
    heads = qkv.view(*qkv.shape[:2], attention.num_heads, -1).transpose(1, 2)
    return heads.split(sizes, dim=3)


def _relative_bias(
    attention: Attention, shape: tuple[int, int] | None
) -> tuple[Tensor, Tensor | None]:
    """Bias between a window's own tokens, heads x tokens x tokens, and towards those it lacks."""
    which = attention.attention_bias_idxs
    if shape is None or tuple(shape) == tuple(attention.resolution):
        return attention.attention_biases[:, which], None
    (height, width), (rows, columns) = shape, attention.resolution
    places = torch.arange(rows * columns, device=which.device).view(rows, columns)
    inside = places[:height, :width].flatten()
    lacking = torch.cat([places[:height, width:].flatten(), places[height:].flatten()])
    own, others = which[inside][:, inside], which[inside][:, lacking]
    return attention.attention_biases[:, own], attention.attention_biases[:, others]


def _weighted(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax(q k^T + bias) v, n x heads x tokens x channels; bias heads x tokens x keys."""
    if bias.requires_grad and q.device.type == "cpu":
        # The fused kernel has no gradient of the bias; what PyTorch runs instead is slower.
        return (q @ k.transpose(2, 3)).add_(bias).softmax(dim=-1) @ v  # no second copy of them
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=1.0)


def parts_of(modality: Tensor, controllers: Sequence[ModalityController]) -> list[list]:
    """The parts of each block for a batch sorted by modality; a list a block.

    `modality`: B int64 in ascending order.
    """
    counts = torch.bincount(modality, minlength=len(controllers)).tolist()
    slices = list(_runs(counts))
    depth = len(controllers[0].blocks)
    return [[(rows, controllers[m].blocks[at]) for m, rows in slices] for at in range(depth)]


def _runs(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    start = 0
    for modality, count in enumerate(counts):
        if count:
            yield modality, slice(start, start + count)
        start += count


def _scaled(rows: slice, factor: int) -> slice:
    return slice(rows.start * factor, rows.stop * factor)


def _split(x: Tensor, parts: Parts) -> Sequence[Tensor]:
    """The rows of each part; `_joined` is the way back."""
    return [x] if len(parts) == 1 else x.split([rows.stop - rows.start for rows, _ in parts])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts' results as one batch; a batch of one modality is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
