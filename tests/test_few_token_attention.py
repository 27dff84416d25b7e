"""Attention between few tokens and many, against segment-anything's own."""

import pytest
import torch
from segment_anything.modeling.transformer import Attention
from tiny_sam import fill
from torch.utils.flop_counter import FlopCounterMode

from lib.models.few_token_attention import FewTokenAttention

WIDTH, HEADS = 32, 4


def pair(rate=2):
    """The original and ours, with the same weights; 16 inner channels at rate 2."""
    original = Attention(WIDTH, HEADS, downsample_rate=rate)
    fill(original, 3)
    ours = Attention(WIDTH, HEADS, downsample_rate=rate)
    ours.load_state_dict(original.state_dict())
    ours.__class__ = FewTokenAttention
    return original, ours


def tokens(queries, keys):
    generator = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(2, n, WIDTH, generator=generator) for n in (queries, keys, keys))
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


@pytest.mark.parametrize(
    ("queries", "keys"),
    [(3, 50), (50, 3), (1, 7), (7, 1), (5, 5), (40, 41)],
    ids=["from few", "to few", "from one", "to one", "equal", "both many"],
)
def test_output_and_gradients_equal_the_original(queries, keys):
    results = []
    for attention in pair():
        inputs = tokens(queries, keys)
        output = attention(*inputs)
        output.square().sum().backward()
        grads = {name: p.grad for name, p in attention.named_parameters()}
        results.append([output.detach(), *(x.grad for x in inputs), grads])
    *expected, theirs = results[0]
    *found, ours = results[1]
    for mine, theirs_ in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs_, rtol=1e-4, atol=1e-4)
    for name, grad in theirs.items():
        if name == "k_proj.bias":  # which softmax ignores: 0 but for rounding, or none at all
            assert ours[name] is not None or queries < keys
            for one in (grad, ours[name]):
                assert one is None or one.abs().max() <= 1e-3 * theirs["k_proj.weight"].abs().max()
            continue
        torch.testing.assert_close(ours[name], grad, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("queries", "keys"), [(3, 5000), (5000, 3)])
def test_an_image_token_costs_the_few_and_not_the_inner_channels(queries, keys):
    counts = []
    for attention in pair():
        with FlopCounterMode(display=False) as counter:
            attention(*tokens(queries, keys))
        counts.append(counter.get_total_flops() / 2 / 2 / 5000)  # multiply-adds a token and image
    inner, fewer = WIDTH // 2, 3 * HEADS
    assert counts[0] == pytest.approx(2 * inner * WIDTH + 2 * 3 * inner, rel=0.01)
    assert counts[1] == pytest.approx(2 * fewer * WIDTH, rel=0.01)
