"""Fused encoder attention: the same output and gradients as segment-anything's own."""

import copy

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling.image_encoder import Attention
from tiny_sam import fill, tiny_sam

from lib.sam.attention import FusedAttention, use_fused_attention
from lib.sam.resize import resize_positions


def outputs_and_gradients(module, x):
    x = x.clone().requires_grad_()
    module.zero_grad()
    y = module(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in module.parameters())]


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("grid", [(14, 14), (6, 9)])
def test_one_layer_equals_original_forward_and_gradient(relative, grid):
    original = Attention(24, num_heads=3, use_rel_pos=relative, input_size=grid)
    fill(original, seed=1)
    fused = copy.deepcopy(original)
    fused.__class__ = FusedAttention
    x = torch.randn(2, *grid, 24, generator=torch.Generator().manual_seed(2))
    for a, b in zip(
        outputs_and_gradients(original, x), outputs_and_gradients(fused, x), strict=True
    ):
        assert (a - b).abs().max() <= 1e-4 * max(1, a.abs().max())


def test_relative_positions_reach_the_fused_output():
    encoder = use_fused_attention(tiny_sam().image_encoder)
    x = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        before = encoder(x)
        encoder.blocks[1].attn.rel_pos_w.zero_()
        assert (encoder(x) - before).abs().max() > 0.01


def test_whole_encoder_with_padded_windows_equals_original():
    encoder = tiny_sam().image_encoder  # 16 x 16 tokens: windows of 14 are padded to 28
    x = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(3))
    original = outputs_and_gradients(encoder, x)
    fused = outputs_and_gradients(use_fused_attention(encoder), x)
    for a, b in zip(original, fused, strict=True):
        assert (a - b).abs().max() <= 1e-4 * max(1, a.abs().max())


@pytest.fixture
def vit_b_256():
    sam = sam_model_registry["vit_b"]()
    for name, parameter in sam.image_encoder.named_parameters():
        if "pos" in name:  # they start at zero and would hide an error
            torch.nn.init.normal_(parameter, std=0.3)
    return resize_positions(sam, 256).image_encoder


def test_vit_b_at_256_equals_original_forward_and_gradient(vit_b_256):
    x = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(4))
    original = outputs_and_gradients(vit_b_256, x)
    fused = outputs_and_gradients(use_fused_attention(vit_b_256), x)
    assert (original[0] - fused[0]).abs().max() <= 1e-4
    for a, b in zip(original[1:], fused[1:], strict=True):
        assert (a - b).abs().max() <= 1e-4 * max(1, a.abs().max())


def test_swap_keeps_keys_and_survives_a_deep_copy():
    encoder = tiny_sam().image_encoder
    keys = list(encoder.state_dict())
    use_fused_attention(encoder)
    assert list(encoder.state_dict()) == keys
    twin = copy.deepcopy(encoder)
    x = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        expected = encoder(x)
        for parameter in encoder.parameters():
            parameter.zero_()
        assert torch.allclose(twin(x), expected)  # the copy runs on its own weights


def test_foreign_attention_is_left_alone():
    class Adapted(Attention):
        pass

    encoder = tiny_sam().image_encoder
    encoder.blocks[0].attn.__class__ = Adapted
    use_fused_attention(encoder)
    assert type(encoder.blocks[0].attn) is Adapted
    assert type(encoder.blocks[1].attn) is FusedAttention
