"""The teacher: SAM at its start, tokens against a plain computation, an adapter a modality."""

import pytest
import torch
from segment_anything.modeling.image_encoder import (
    Attention,
    add_decomposed_rel_pos,
    window_partition,
    window_unpartition,
)
from tiny_sam import WIDTH, fill, tiny_sam
from torch import nn

from lib.sam.attention import use_fused_attention
from lib.sam.medical_encoder import MedicalEncoder, SpecificAdapters, TokenAttention

NAMES = ("fundus", "xray", "nuclei")
MIXED = torch.tensor([2, 0, 1])


def images(count=3):
    return torch.rand(count, 3, 256, 256, generator=torch.Generator().manual_seed(1))


def teacher(seed=0, *, filled=True, **sam):
    torch.manual_seed(seed)
    built = MedicalEncoder(tiny_sam(**sam), modalities=NAMES)
    if filled:
        fill(built, seed + 1)
    return built


@torch.no_grad()
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("grid", [(14, 14), (6, 9)])
def test_tokens_are_more_keys_and_values_without_a_position(relative, grid):
    attention = Attention(24, num_heads=3, use_rel_pos=relative, input_size=grid)
    fill(attention, seed=1)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, *grid, 24, generator=generator)
    tokens = torch.randn(3, 10, 8, generator=generator)
    count = grid[0] * grid[1]
    qkv = attention.qkv(x).reshape(2, count, 3, 3, 8).permute(2, 0, 3, 1, 4)
    q, k, v = (part.flatten(0, 1) for part in qkv)  # images x heads first
    logits = q @ k.transpose(1, 2) * 8**-0.5
    if relative:
        tables = attention.rel_pos_h, attention.rel_pos_w
        logits = add_decomposed_rel_pos(logits, q, *tables, grid, grid)
    extra = tokens.repeat(2, 1, 1)
    logits = torch.cat([logits, q @ extra.transpose(1, 2) * 8**-0.5], dim=2)
    out = logits.softmax(2) @ torch.cat([v, extra], dim=1)
    expected = attention.proj(out.view(2, 3, *grid, 8).permute(0, 2, 3, 1, 4).flatten(3))
    plain = attention(x)
    attention.__class__ = TokenAttention
    torch.testing.assert_close(attention(x, tokens), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(attention(x), plain, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_specific_adapters_of_a_mixed_batch_are_linear_layers_one_by_one():
    adapters = SpecificAdapters(16, 3)
    fill(adapters, seed=1)
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(2))
    for row, m in enumerate(MIXED.tolist()):
        hidden = nn.functional.linear(x[row], adapters.down[m].T, adapters.down_bias[m, 0])
        out = nn.functional.linear(
            nn.functional.gelu(hidden), adapters.up[m].T, adapters.up_bias[m, 0]
        )
        torch.testing.assert_close(adapters(x, MIXED)[row], out)


@torch.no_grad()
def test_without_a_modality_it_is_plain_sam():
    sam = tiny_sam()
    x = images()
    expected = sam.image_encoder(sam.preprocess(255 * x))
    built = MedicalEncoder(sam, modalities=NAMES)
    torch.testing.assert_close(built(x), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_adapters_start_at_zero():
    """So that training starts from SAM, but for the tokens."""
    built, x = teacher(filled=False), images()
    start = built(x, MIXED)
    for block in built.blocks:
        block.common, block.specific = nn.Identity(), nn.Identity()
        block.common.forward = torch.zeros_like
        block.specific.forward = lambda features, modality: torch.zeros_like(features)
    torch.testing.assert_close(built(x, MIXED), start)
    assert (start - built(x)).abs().max() > 1e-4


def in_windows(block, added, normed):
    """Attention with tokens in windows of 14 x 14, of which 16 x 16 tokens need four, padded."""
    windows, padded = window_partition(normed, 14)
    assert (len(windows), padded) == (4 * len(normed), (28, 28))
    return window_unpartition(block.attn(windows, added.tokens), 14, padded, (16, 16))


def globally(block, added, normed):
    return block.attn(normed, added.tokens)


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("place", "attend"), [(0, in_windows), (1, globally)])
def test_blocks_equal_the_formula_with_both_adapters(place, attend, fused):
    sam = tiny_sam()
    if fused:
        use_fused_attention(sam.image_encoder)
    built = MedicalEncoder(sam, modalities=NAMES)
    fill(built, seed=1)
    block, added = sam.image_encoder.blocks[place], built.blocks[place]
    x = torch.randn(3, 16, 16, WIDTH, generator=torch.Generator().manual_seed(4))
    middle = x + attend(block, added, block.norm1(x))
    n = block.norm2(middle)
    specific = torch.stack(
        [added.specific(n[i].flatten(0, 1)[None], MIXED[i : i + 1])[0] for i in range(3)]
    ).view_as(x)
    expected = middle + block.mlp(n) + added.common(n) + specific
    torch.testing.assert_close(added(block, x, MIXED), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_mixed_batch_gives_each_image_what_it_gets_alone():
    built, x = teacher(), images()
    together = built(x, MIXED)
    alone = torch.cat([built(x[i : i + 1], MIXED[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    assert (built(x, MIXED.flip(0)) - together).abs().max() > 0.01


def test_sam_is_frozen_and_not_part_of_what_is_saved_or_trained():
    built = teacher()
    built.train()
    built(images(1), MIXED[:1]).square().mean().backward()
    assert not any(p.requires_grad or p.grad is not None for p in built.sam.parameters())
    assert not built.sam.training
    assert {name.split(".")[0] for name in built.state_dict()} == {"blocks"}
    assert all(p.grad is not None for p in built.parameters())
    # width 32, 4 heads: tokens 10 x 32, common 32 -> 64 -> 32, specific 3 x (32 -> 8 -> 32)
    block = 320 + (32 * 64 + 64 + 64 * 32 + 32) + 3 * (32 * 8 + 8 + 8 * 32 + 32)
    assert sum(p.numel() for p in built.parameters()) == 2 * block
    assert built.width == WIDTH


def test_fingerprint_follows_sam_and_adaptations():
    one, other = teacher(), teacher()
    assert one.fingerprint() == other.fingerprint()
    with torch.no_grad():
        other.blocks[0].tokens[0, 0, 0] += 1
    assert one.fingerprint() != other.fingerprint()
    third = MedicalEncoder(tiny_sam(seed=9), modalities=NAMES)
    third.load_state_dict(one.state_dict())
    assert one.fingerprint() != third.fingerprint()


@torch.no_grad()
def test_one_sam_fused_or_not_may_serve_several_encoders():
    sam = tiny_sam()
    use_fused_attention(sam.image_encoder)
    one = MedicalEncoder(sam, modalities=NAMES)
    fill(one, seed=1)
    other = MedicalEncoder(sam, modalities=NAMES)
    other.load_state_dict(one.state_dict())
    x = images()
    assert torch.equal(one(x, MIXED), other(x, MIXED))
    torch.testing.assert_close(one(x, MIXED), teacher()(x, MIXED))


def test_what_does_not_fit_is_refused():
    for names in ((), ("a", "a")):
        with pytest.raises(ValueError, match="different names"):
            MedicalEncoder(tiny_sam(), modalities=names)
    sam = tiny_sam()
    sam.image_encoder.blocks[0].attn = nn.Identity()
    with pytest.raises(ValueError, match="a block has Identity"):
        MedicalEncoder(sam, modalities=NAMES)
