"""The decoder: one query a modality, mixed batches against one image at a time."""

import pytest
import torch
from tiny_sam import fill

from lib.models.modality_decoder import ModalityDecoder

WIDTH = 32


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def decoder(modalities=3, *, seed=0, **changes):
    built = ModalityDecoder(modalities=modalities, width=WIDTH, **changes)
    fill(built, seed)
    return built.eval()


def embeddings(count=5, *, seed=1):
    return torch.randn(count, WIDTH, 4, 6, generator=torch.Generator().manual_seed(seed))


def image_by_image(built, embedding, modality):
    """One image at a time, the channels of all modalities, then the one that is asked for."""
    masks = []
    for image, index in zip(embedding, modality.tolist(), strict=True):
        queries = torch.cat(list(built.queries))
        if built.isolated:
            queries, index, hyper = queries[index : index + 1], 0, index
        else:
            hyper = index
        position = built.position(image.shape[1:])[None]
        tokens, keys = built.transformer(image[None], position, queries[None])
        grid = keys[0].T.reshape(1, WIDTH, *image.shape[1:])
        upscaled = built.upscale(grid)[0]
        own = built.hyper[hyper if built.own_hyper else 0]
        channels = [(own(token)[:, None, None] * upscaled).sum(0) for token in tokens[0]]
        masks.append(channels[index][None])
    return torch.stack(masks)


def test_parameters_are_those_of_the_released_code_and_exactly_k_queries():
    built = ModalityDecoder(modalities=6)
    assert [tuple(q.shape) for q in built.queries] == [(6, 256)]
    assert size(built) - 6 * 256 == 3_505_024


@torch.no_grad()
@pytest.mark.parametrize("own_hyper", [False, True])
@pytest.mark.parametrize("isolated", [False, True])
def test_a_mixed_batch_equals_image_by_image(own_hyper, isolated):
    built = decoder(own_hyper=own_hyper, isolated=isolated)
    modality = torch.tensor([2, 0, 1, 1, 0])
    masks = built(embeddings(), modality)
    assert masks.shape == (5, 1, 16, 24)
    expected = image_by_image(built, embeddings(), modality)
    torch.testing.assert_close(masks, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_queries_of_other_modalities_matter_unless_isolated():
    for isolated in (False, True):
        built, modality = decoder(isolated=isolated), torch.tensor([0, 1, 0, 1, 0])
        before = built(embeddings(), modality)
        built.queries[0][2] += 1
        assert torch.equal(built(embeddings(), modality), before) == isolated


@torch.no_grad()
def test_one_query_for_all_makes_the_modality_irrelevant():
    built = decoder(one_query=True)
    assert [tuple(q.shape) for q in built.queries] == [(1, WIDTH)]
    one, other = (built(embeddings(), torch.full((5,), m)) for m in (0, 2))
    assert torch.equal(one, other)


@torch.no_grad()
@pytest.mark.parametrize("own_hyper", [False, True])
@pytest.mark.parametrize("isolated", [False, True])
def test_a_new_modality_leaves_the_old_masks_bit_identical(own_hyper, isolated):
    built = decoder(own_hyper=own_hyper, isolated=isolated)
    old = torch.tensor([2, 0, 1, 1, 0])
    before = built(embeddings(), old)
    built.add_modality()
    built.add_modality()
    assert torch.equal(built(embeddings(), old), before)
    # mixed with the new ones, in a batch of any order
    mixed = torch.tensor([4, 0, 3, 1, 4])
    masks = built(embeddings(), mixed)
    torch.testing.assert_close(masks[[1, 3]], before[[1, 3]], rtol=1e-4, atol=1e-5)
    alone = [built(embeddings()[i : i + 1], mixed[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(masks, torch.cat(alone), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_new_query_meets_the_old_ones_and_not_those_that_come_later():
    built = decoder()
    built.add_modality()
    new = torch.full((5,), 3)
    before = built(embeddings(), new)
    built.add_modality()
    assert torch.equal(built(embeddings(), new), before)
    built.queries[0][0] += 1
    assert not torch.equal(built(embeddings(), new), before)


def test_every_query_and_weight_can_learn():
    built = decoder(own_hyper=True)
    built(embeddings(), torch.tensor([0, 1, 2, 0, 1])).square().sum().backward()
    assert [name for name, p in built.named_parameters() if p.grad is None] == []


def test_arguments_that_contradict_are_refused():
    with pytest.raises(ValueError, match="modalities must be at least 1, got 0"):
        ModalityDecoder(modalities=0, width=WIDTH)
    with pytest.raises(ValueError, match="one_query=True leaves nothing to own"):
        decoder(one_query=True, own_hyper=True)
    with pytest.raises(ValueError, match="every modality, a new one too"):
        decoder(one_query=True).add_modality()
