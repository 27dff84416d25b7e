"""Windows without padding: segment-anything's own blocks, forward and backward."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from segment_anything.modeling.image_encoder import Block
from tiny_sam import fill
from torch import nn

from lib.sam.attention import UnpaddedBlock, use_fused_attention
from lib.sam.knowsam_release import normalise_after_padding
from lib.windows import map_windows, padding_mass


def encoder(relative=True, window=14):
    """One block of 24 channels behind a module that has `blocks`."""
    block = Block(24, num_heads=3, window_size=window, use_rel_pos=relative, input_size=(16, 16))
    fill(block, seed=1)
    module = nn.Module()
    module.blocks = nn.ModuleList([block])
    return module.double()  # so that a term left out is not taken for rounding


def outputs_and_gradients(block, x):
    x = x.clone().requires_grad_()
    block.zero_grad()
    y = block(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in block.parameters())]


def assert_same(found, expected, tolerance=1e-10):
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("norm_last", [False, True])
@pytest.mark.parametrize("grid", [(16, 16), (14, 14), (28, 14), (6, 9), (14, 20), (31, 17)])
def test_block_equals_original_forward_and_gradient(relative, norm_last, grid):
    original = encoder(relative)
    if norm_last:
        normalise_after_padding(SimpleNamespace(image_encoder=original))
    unpadded = use_fused_attention(copy.deepcopy(original)).blocks[0]
    assert type(unpadded) is UnpaddedBlock
    x = torch.randn(2, *grid, 24, generator=torch.Generator().manual_seed(2)).double()
    results = (outputs_and_gradients(b, x) for b in (unpadded, original.blocks[0]))
    assert_same(*results)


def test_the_grid_of_a_1024_px_image():
    original = encoder()
    unpadded = use_fused_attention(copy.deepcopy(original)).blocks[0]
    x = torch.randn(1, 64, 64, 24, generator=torch.Generator().manual_seed(3)).double()
    assert_same(outputs_and_gradients(unpadded, x), outputs_and_gradients(original.blocks[0], x))


def test_in_single_precision_to_rounding():
    original = encoder().float()
    unpadded = use_fused_attention(copy.deepcopy(original)).blocks[0]
    x = torch.randn(2, 16, 16, 24, generator=torch.Generator().manual_seed(4))
    results = (outputs_and_gradients(b, x) for b in (unpadded, original.blocks[0]))
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 1e-4 * expected.norm()
    with torch.no_grad():
        assert_same([unpadded(x)], [original.blocks[0](x)], tolerance=1e-5)


def test_padding_is_not_computed():
    """Of 28 x 28 tokens that the original attends with, 16 x 16 are the image's."""
    module = use_fused_attention(encoder())
    seen = []
    module.blocks[0].attn.proj.register_forward_hook(lambda m, x, y: seen.append(x[0].shape))
    module.blocks[0](torch.randn(2, 16, 16, 24, dtype=torch.float64))
    assert seen == [(2, 16, 16, 24)]


def test_release_after_the_swap_is_the_release_before_it():
    before, after = encoder(), encoder()
    use_fused_attention(
        normalise_after_padding(SimpleNamespace(image_encoder=before)).image_encoder
    )
    normalise_after_padding(SimpleNamespace(image_encoder=use_fused_attention(after)))
    x = torch.randn(1, 16, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(before.blocks[0](x), after.blocks[0](x))


def test_global_blocks_stay():
    assert type(use_fused_attention(encoder(window=0)).blocks[0]) is Block


@pytest.mark.parametrize("shape", [(2, 3), (2, 5), (5, 3)])
def test_padding_mass_is_the_sum_over_padded_tokens(shape):
    rows, columns = torch.randn(7, 5), torch.randn(7, 5)
    every = (rows[:, :, None] + columns[:, None, :]).exp()
    every[:, : shape[0], : shape[1]] = 0
    torch.testing.assert_close(padding_mass(rows, columns, shape, 5), every.sum(dim=(1, 2)).log())
    assert padding_mass(None, None, shape, 5) == math.log(25 - shape[0] * shape[1])


def test_windows_are_mapped_one_by_one():
    grid = torch.arange(2 * 5 * 7.0).reshape(2, 5, 7, 1)
    shapes = []

    def number_from_the_first(windows):
        shapes.append(tuple(windows.shape))
        return windows - windows[:, :1, :1]

    found = map_windows(grid, 3, number_from_the_first)
    assert shapes == [(4, 3, 3, 1), (2, 3, 1, 1), (4, 2, 3, 1), (2, 2, 1, 1)]
    for r, c in ((0, 0), (2, 2), (3, 4), (4, 6), (1, 6)):
        assert found[1, r, c] == grid[1, r, c] - grid[1, r // 3 * 3, c // 3 * 3]
