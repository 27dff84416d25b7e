"""Self-patch prompts: counts, the map, what carries a gradient, patch targets by hand."""

import pytest
import torch
from torch.nn import functional

from lib.prompts.self_patch import SelfPatchPrompts, patch_targets


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_those_of_the_released_code():
    prompts = SelfPatchPrompts()
    assert (size(prompts.patch_head), size(prompts.dense)) == (65_793, 1_024)


def test_map_is_thresholded_at_one_half_and_doubled():
    logits = torch.tensor([[[[-0.1, 0.0], [3.0, -2.0]]]])
    on = SelfPatchPrompts.threshold(logits)
    assert on.tolist() == [[[[False, True], [True, False]]]]
    prompts = SelfPatchPrompts(width=8, oracle=True)
    prompts.dense = torch.nn.Identity()  # shows the map that enters the dense prompt
    dense, _ = prompts(torch.randn(1, 8, 4, 4), on.float())
    expected = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]])
    assert torch.equal(dense[0, 0], expected.float())


def test_dense_prompt_is_the_network_on_the_whole_map_with_the_same_gradients():
    torch.manual_seed(0)
    prompts = SelfPatchPrompts(width=32, oracle=True)
    patches = (torch.rand(2, 1, 3, 2) > 0.5).float()
    weights = torch.randn(2, 32, 6, 4)
    dense, _ = prompts(torch.randn(2, 32, 6, 4), patches)
    whole = prompts.dense(functional.interpolate(patches, scale_factor=2.0))
    torch.testing.assert_close(dense, whole)
    parameters = list(prompts.dense.parameters())
    for one, other in zip(
        torch.autograd.grad((dense * weights).sum(), parameters),
        torch.autograd.grad((whole * weights).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_dense_prompt_is_one_vector_for_target_patches_and_one_for_the_others():
    torch.manual_seed(0)
    prompts = SelfPatchPrompts(width=32)
    embedding = torch.randn(2, 32, 6, 4)
    with torch.no_grad():
        prompts.patch_head[3].bias -= prompts.patch_head(embedding).mean()
    dense, logits = prompts(embedding)
    assert (dense.shape, logits.shape) == ((2, 32, 6, 4), (2, 1, 3, 2))
    on = (logits > 0).repeat_interleave(2, 2).repeat_interleave(2, 3)[:, 0]
    assert on.any()
    assert not on.all()
    vectors = dense.permute(0, 2, 3, 1)
    conv, norm, gelu = prompts.dense
    for value in (0.0, 1.0):
        vector = gelu(norm(conv(torch.full((1, 1, 1, 1), value))))[0, :, 0, 0]
        chosen = vectors[on == bool(value)]
        torch.testing.assert_close(chosen, vector.expand(len(chosen), -1))


def test_patch_head_learns_from_its_own_loss_alone():
    prompts = SelfPatchPrompts(width=8)
    embedding = torch.randn(2, 8, 4, 4, requires_grad=True)
    dense, logits = prompts(embedding)
    dense.sum().backward(retain_graph=True)
    assert all(p.grad is None for p in prompts.patch_head.parameters())
    assert embedding.grad is None
    logits.sum().backward()
    assert all(p.grad is not None for p in prompts.patch_head.parameters())


def test_patch_targets_by_hand():
    mask = torch.zeros(2, 64, 96, dtype=torch.int64)
    mask[0, 31, 32] = 1  # last row of the first patches, first column of the second
    mask[1, 32:, 95] = 1
    targets = patch_targets(mask)
    assert targets.tolist() == [[[[0, 1, 0], [0, 0, 0]]], [[[0, 0, 0], [0, 0, 1]]]]
    assert targets.dtype == torch.float32


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"mask is 64 x 80 px.*multiples of 32"):
        patch_targets(torch.zeros(1, 64, 80, dtype=torch.int64))
    embedding, patches = torch.zeros(1, 8, 4, 4), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"oracle=False, patches given"):
        SelfPatchPrompts(width=8)(embedding, patches)
    with pytest.raises(ValueError, match=r"oracle=True, patches missing"):
        SelfPatchPrompts(width=8, oracle=True)(embedding)
