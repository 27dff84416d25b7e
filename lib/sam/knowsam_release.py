"""Where the SAM inside KnowSAM's released code computes something else than SAM.

Huang et al. 2025, arXiv 2412.13742; code at github.com/taozh2017/KnowSAM. The paper mentions none
of it. Each function makes one departure on a SAM of segment-anything's own classes, so that both
readings can be compared; call them after `lib.sam.adapters.add_adapters`. Two more are options of
`load_sam` (relative position tables left out) and of `lib.sam.adapted` (no mean, no deviation).
"""

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn


def randomise_decoder_mlps(sam: Sam, *, seed: int = 0) -> Sam:
    """Draw the two MLPs of the mask decoder's transformer at random; changes and returns `sam`.

    The released code names their layers otherwise than SAM's checkpoint and drops unknown names
    without a word, so that they stay as initialised, and frozen. Drawn by a seed of their own, so
    that a resumed run, whose checkpoint holds no frozen weights, has the same ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in sam.mask_decoder.transformer.layers:
            layer.mlp.lin1.reset_parameters()
            layer.mlp.lin2.reset_parameters()
    return sam


def normalise_after_padding(sam: Sam) -> Sam:
    """Pad windows before the norm instead of after it; changes `sam` and returns it.

    SAM normalises, then fills incomplete windows with zeros. The other way round the norm turns
    those zeros into its bias, which the tokens of the window then attend to. So the bias is taken
    off before the padding and put on behind it, which comes to the same. Attention that works
    without padding (`lib.sam.attention`) finds there what padded tokens would be.
    """
    for block in sam.image_encoder.blocks:
        if block.window_size > 0:
            block.norm1.register_forward_hook(_take_bias_off)
            block.attn.padding = block.norm1.bias
            block.attn.register_forward_pre_hook(_put_bias_on)
    return sam


def add_residual_to_self_attention(sam: Sam) -> Sam:
    """Change the decoder's self-attention of tokens; changes `sam` and returns it.

    SAM's first layer replaces the tokens by the attention's output, and its second attends with
    positions on queries and keys. The released code keeps a residual in both, and lets positions
    into the values and the residual of the second.
    """
    for number, layer in enumerate(sam.mask_decoder.transformer.layers):
        layer.self_attn = ResidualSelfAttention(layer.self_attn, first=number == 0)
    return sam


class ResidualSelfAttention(nn.Module):
    """Self-attention of tokens with positions, and the residual that SAM's block does not add."""

    def __init__(self, attention: Attention, *, first: bool):
        """`first`: the block takes the output as it is; the others add `v` to it themselves."""
        super().__init__()
        self.attention, self.first = attention, first

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Tokens `B x N x C`; `q` holds positions in all layers but the first, `v` never."""
        attended = self.attention(q=q, k=q, v=q)
        return q + attended if self.first else (q - v) + attended


def _take_bias_off(norm: nn.LayerNorm, inputs: tuple, output: Tensor) -> Tensor:
    return output - norm.bias


def _put_bias_on(attention: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0] + attention.padding,)
