"""SAM's image encoder adapted to medical images: the teacher of ESP-MedSAM's controllers.

Xu et al. 2024, arXiv 2407.14153. The authors released no code of their teacher; its figure shows
a frozen encoder with, in each block, 10 learned tokens among keys and values and two bypass
adapters, a common one C -> 2C -> C and a specific one C -> C/4 -> C. Our reading of what it leaves
open: the adapters bypass the MLP and start at zero, tokens and common adapter serve all modalities,
and there is one specific adapter a modality.

    a = x + Attention([tokens], norm1(x));  n = norm2(a);  a + MLP(n) + common(n) + specific_m(n)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import (
    Attention,
    Block,
    window_partition,
    window_unpartition,
)
from torch import Tensor, nn

from lib.fingerprint import tensors_fingerprint
from lib.sam.attention import FusedAttention
from lib.sam.frozen import encoder_fingerprint
from lib.sam.preprocess import preprocess
from lib.tokens import new_tokens

TOKENS = 10


class TokenAttention(FusedAttention):
    """Fused attention that also attends to given tokens, which have no position."""

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Attend within each B x H x W x C grid.

        `tokens`: heads x T x C/heads, as keys and as values; None attends to the grid alone.
        """
        if tokens is None:
            return super().forward(x)
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scale = self.scale
        if self.use_rel_pos:
            q, k, v = self._with_positions(q, k, v, height, width)
            scale = 1.0  # in the queries already
        tokens = F.pad(tokens, (0, k.shape[-1] - tokens.shape[-1])).expand(batch, -1, -1, -1)
        k, v = torch.cat([k, tokens], dim=2), torch.cat([v, tokens], dim=2)
        out = F.scaled_dot_product_attention(q, k, v, scale=scale)
        out = out[..., : channels // self.num_heads].transpose(1, 2)
        return self.proj(out.reshape(batch, height, width, channels))


class SpecificAdapters(nn.Module):
    """One adapter C -> C/4 -> C a modality, applied to a mixed batch at once."""

    def __init__(self, width: int, modalities: int):
        """`width`: C. The second layers start at zero."""
        super().__init__()
        hidden, bound = width // 4, width**-0.5  # the bound of PyTorch's own linear layers
        self.down = nn.Parameter(torch.empty(modalities, width, hidden).uniform_(-bound, bound))
        self.down_bias = nn.Parameter(torch.empty(modalities, 1, hidden).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(modalities, hidden, width))
        self.up_bias = nn.Parameter(torch.zeros(modalities, 1, width))

    def forward(self, features: Tensor, modality: Tensor) -> Tensor:
        """What to add to features B x N x C of images of `modality` (B int64)."""
        hidden = F.gelu(torch.baddbmm(self.down_bias[modality], features, self.down[modality]))
        return torch.baddbmm(self.up_bias[modality], hidden, self.up[modality])


class BlockAdaptation(nn.Module):
    """What is trained for one block of SAM's encoder: tokens and both adapters."""

    def __init__(self, block: Block, modalities: int):
        """Fit `block`, which stays outside: it is frozen and not part of this module."""
        super().__init__()
        width, heads = block.norm1.normalized_shape[0], block.attn.num_heads
        self.tokens = new_tokens(heads, TOKENS, width // heads)
        self.common = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        nn.init.zeros_(self.common[2].weight)
        nn.init.zeros_(self.common[2].bias)
        self.specific = SpecificAdapters(width, modalities)

    def forward(self, block: Block, x: Tensor, modality: Tensor) -> Tensor:
        """Run `block` with what was added to it, on B x H x W x C tokens of the image."""
        normed = block.norm1(x)
        if block.window_size > 0:
            windows, padded = window_partition(normed, block.window_size)
            attended = block.attn(windows, self.tokens)
            attended = window_unpartition(attended, block.window_size, padded, x.shape[1:3])
        else:
            attended = block.attn(normed, self.tokens)
        x = x + attended
        normed = block.norm2(x)
        specific = self.specific(normed.flatten(1, 2), modality).view_as(x)
        return x + block.mlp(normed) + self.common(normed) + specific


class MedicalEncoder(nn.Module):
    """A frozen SAM encoder with trained tokens and adapters; the signature is the student's.

    SAM itself is no submodule: it is neither saved with this module nor trained, and several
    encoders may share one. Its attention is replaced in place by an equal one that takes tokens.
    """

    def __init__(self, sam: Sam, *, modalities: Sequence[str]):
        """Freeze `sam` and add untrained adaptations for `modalities`, all names different.

        Raises:
            ValueError: for no modality, or an attention that is not segment-anything's.
        """
        super().__init__()
        if not modalities or len(set(modalities)) < len(modalities):
            raise ValueError(f"modalities must be one or more different names, got {modalities}")
        sam.eval().requires_grad_(False)
        for block in sam.image_encoder.blocks:
            if type(block.attn) not in (Attention, FusedAttention, TokenAttention):
                raise ValueError(
                    f"a block has {type(block.attn).__name__} in the place of segment-anything's "
                    "attention: load a fresh SAM with load_sam"
                )
            block.attn.__class__ = TokenAttention
        self._sam = (sam,)
        self.modalities = tuple(modalities)
        self.blocks = nn.ModuleList(
            BlockAdaptation(block, len(modalities)) for block in sam.image_encoder.blocks
        )

    @property
    def sam(self) -> Sam:
        """The frozen SAM."""
        return self._sam[0]

    @property
    def width(self) -> int:
        """Channels of the embedding."""
        return self.sam.mask_decoder.transformer_dim

    def forward(self, image: Tensor, modality: Tensor | None = None) -> Tensor:
        """Embed images, each under the adapter of its modality.

        Args:
            image: B x 3 x H x W in [0, 1]; resized to SAM's own size where it has another.
            modality: B int64. None leaves all out that was added: plain SAM.

        Returns:
            B x C x S/16 x S/16 for a SAM of S px.
        """
        sam = self.sam.to(image.device)  # outside the modules, so nobody else moves it
        encoder = sam.image_encoder
        with torch.no_grad():
            pixels = preprocess(sam, image)
            if modality is None:
                return encoder(pixels)
            x = encoder.patch_embed(pixels)
            if encoder.pos_embed is not None:
                x = x + encoder.pos_embed
        modality = modality.to(x.device)
        for block, adaptation in zip(encoder.blocks, self.blocks, strict=True):
            x = adaptation(block, x, modality)
        return encoder.neck(x.permute(0, 3, 1, 2))

    def fingerprint(self) -> str:
        """SHA-256 over all that an embedding depends on: SAM's encoder and the adaptations."""
        return tensors_fingerprint(self.state_dict(), start=encoder_fingerprint(self.sam))
