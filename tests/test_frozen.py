"""The frozen teacher: no gradient, each image encoded once."""

import pytest
import torch
from tiny_sam import prompt, tiny_sam

from lib.sam.decode import decode_prompts
from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import FrozenSam, encoder_fingerprint, sam_fingerprint
from lib.sam.preprocess import preprocess


def images(count=3, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_no_parameter_gets_a_gradient():
    sam = tiny_sam().train()
    frozen = FrozenSam(sam)
    network = torch.nn.Conv2d(3, 3, 1)
    embeddings = frozen.encode(network(images(1)).sigmoid())
    decoded = frozen.decode(embeddings, [prompt([[5, 5]], [1])], [0], (64, 64))
    assert not embeddings.requires_grad
    assert not decoded.logits.requires_grad
    assert not sam.training
    assert not any(parameter.requires_grad for parameter in sam.parameters())


def test_a_method_that_holds_it_does_not_own_its_weights():
    module = torch.nn.Linear(2, 2)
    module.teacher = FrozenSam(tiny_sam())
    assert set(module.state_dict()) == {"weight", "bias"}


def test_encode_and_decode_are_those_of_the_model():
    sam = tiny_sam()
    frozen = FrozenSam(sam)
    batch = images()
    embeddings = frozen.encode(batch)
    with torch.no_grad():
        assert torch.allclose(embeddings, sam.image_encoder(preprocess(sam, batch)), atol=1e-5)
        prompts = [prompt(box=[3, 4, 30, 40]), prompt([[9, 9]], [1])]
        ours = frozen.decode(embeddings, prompts, [2, 0], (64, 64))
        theirs = decode_prompts(sam, embeddings, prompts, [2, 0], size=(64, 64))
    assert torch.equal(ours.logits, theirs.logits)
    assert frozen.calls.encoded == 3
    assert frozen.calls.decoded == 2


def test_an_embedding_does_not_depend_on_its_batch_bit_for_bit():
    frozen = FrozenSam(tiny_sam())
    batch = images(4)
    together = frozen.encode(batch)
    alone = torch.cat([frozen.encode(batch[k : k + 1]) for k in range(4)])
    assert torch.equal(together, alone)


def test_each_image_is_encoded_once(tmp_path):
    frozen = FrozenSam(tiny_sam(), cache=EmbeddingCache(tmp_path))
    batch = images(4)
    first = frozen.encode(batch[[0, 1, 1]])  # the repeated one once
    assert (frozen.calls.encoded, frozen.calls.cached) == (2, 0)
    second = frozen.encode(batch)  # only 2 and 3 are missing
    assert (frozen.calls.encoded, frozen.calls.cached) == (4, 2)
    assert torch.equal(second[[0, 1, 1]], first)
    assert torch.equal(FrozenSam(tiny_sam()).encode(batch), second)
    again = FrozenSam(tiny_sam(), cache=EmbeddingCache(tmp_path))  # the next run
    assert torch.equal(again.encode(batch), second)
    assert (again.calls.encoded, again.calls.cached) == (0, 4)


def test_what_an_embedding_depends_on_is_in_the_key(tmp_path):
    cache = EmbeddingCache(tmp_path)
    FrozenSam(tiny_sam(), cache=cache).encode(images(1))

    other_mean = tiny_sam()
    other_mean.pixel_mean += 1
    for sam in (tiny_sam(seed=1), tiny_sam(512), other_mean):
        frozen = FrozenSam(sam, cache=cache)
        frozen.encode(images(1))
        assert (frozen.calls.encoded, frozen.calls.cached) == (1, 0)
    same = FrozenSam(tiny_sam(), cache=cache)
    same.encode(images(1) + 1e-6)  # another image
    assert same.calls.encoded == 1
    half = FrozenSam(tiny_sam(), cache=EmbeddingCache(tmp_path, dtype=torch.bfloat16))
    half.encode(images(1))
    assert half.calls.encoded == 1


def test_half_precision_cache_gives_the_same_in_both_rounds(tmp_path):
    frozen = FrozenSam(tiny_sam(), cache=EmbeddingCache(tmp_path, dtype=torch.bfloat16))
    first, second = frozen.encode(images()), frozen.encode(images())
    assert frozen.calls.encoded == 3
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
    exact = FrozenSam(tiny_sam()).encode(images())
    assert 0 < (first - exact).abs().max() <= exact.abs().max() * 2**-8


def test_own_keys_replace_the_hash_of_the_images(tmp_path):
    frozen = FrozenSam(tiny_sam(), cache=EmbeddingCache(tmp_path))
    batch = images(2)
    first = frozen.encode(batch, keys=["a", "b"])
    assert torch.equal(frozen.encode(batch.flip(0), keys=["b", "a"]), first.flip(0))
    assert frozen.calls.encoded == 2
    with pytest.raises(ValueError, match="2 images but 1 keys"):
        frozen.encode(batch, keys=["a"])


def test_damaged_entry_is_encoded_again(tmp_path):
    cache = EmbeddingCache(tmp_path)
    frozen = FrozenSam(tiny_sam(), cache=cache)
    first = frozen.encode(images(1))
    path, size = cache.entries()[0]
    with path.open("r+b") as file:
        file.seek(size - 5)
        file.write(b"\x55")
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(frozen.encode(images(1)), first)
    assert frozen.calls.encoded == 2


def test_an_embedding_depends_on_the_encoder_only_and_a_mask_on_all():
    sam = tiny_sam()
    before, whole = encoder_fingerprint(sam), sam_fingerprint(sam)
    with torch.no_grad():
        sam.mask_decoder.iou_token.weight += 1
        assert encoder_fingerprint(sam) == before
        assert sam_fingerprint(sam) != whole
        sam.image_encoder.neck[0].weight[0, 0] += 1e-3
        assert encoder_fingerprint(sam) != before


def test_encode_at_once_must_be_positive():
    with pytest.raises(ValueError, match="encode_at_once=0"):
        FrozenSam(tiny_sam(), encode_at_once=0)
