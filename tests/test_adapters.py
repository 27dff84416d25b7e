import copy

import pytest
import torch
from segment_anything.modeling.image_encoder import window_partition
from tiny_sam import WIDTH, tiny_sam
from torch.nn import functional

from lib.sam.adapted import AdaptedSam
from lib.sam.adapters import Adapter, adapters, add_adapters
from lib.sam.attention import use_fused_attention
from lib.sam.decode import decode_batch
from lib.sam.knowsam_release import (
    add_residual_to_self_attention,
    normalise_after_padding,
    randomise_decoder_mlps,
)
from lib.sam.small import build_small_sam

SIZE = 64


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def fill_adapters(sam, seed=0):
    """Move the adapters away from zero."""
    generator = torch.Generator().manual_seed(seed)
    for adapter in adapters(sam):
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return sam


class Tokens(torch.nn.Module):
    """One learned token a class, the same for every image."""

    def __init__(self, classes, width):
        super().__init__()
        self.tokens = torch.nn.Parameter(torch.randn(1, classes, 1, width))

    def forward(self, embedding):
        return self.tokens.expand(len(embedding), -1, -1, -1)


def test_size_is_that_of_the_released_adapter():
    assert parameters(Adapter(768)) == 295_872
    assert parameters(Adapter(256)) == 33_088


def test_adapter_by_hand():
    adapter = Adapter(8, zero_output=False)
    x = torch.randn(3, 8)
    hidden = functional.gelu(x @ adapter.down.weight.T + adapter.down.bias)
    torch.testing.assert_close(adapter(x), hidden @ adapter.up.weight.T + adapter.up.bias)


@pytest.mark.parametrize("build", [lambda: tiny_sam(SIZE), build_small_sam])
def test_pretrained_function_is_kept_at_the_start_and_only_adapters_train(build):
    torch.manual_seed(0)
    sam = build().eval()
    side = sam.image_encoder.img_size
    adapted = add_adapters(copy.deepcopy(sam))
    with torch.no_grad():
        image = torch.randn(1, 3, side, side)
        embedding = sam.image_encoder(image)
        torch.testing.assert_close(adapted.image_encoder(image), embedding, rtol=0, atol=0)
        prompt = sam.prompt_encoder(None, torch.tensor([[4.0, 4, 40, 30]]), None)
        same = [decode_batch(model, embedding, *prompt)[0] for model in (sam, adapted)]
        torch.testing.assert_close(*same, rtol=0, atol=0)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in adapted.named_parameters() if ".adapter." in name}
    old = set(sam.state_dict())
    assert {name for name in adapted.state_dict() if ".adapter." not in name} == old


def test_places_in_the_encoder_by_hand():
    sam = fill_adapters(add_adapters(tiny_sam(SIZE), decoder=False))
    block = sam.image_encoder.blocks[1]  # global attention: no windows between
    x = torch.randn(1, 4, 4, WIDTH)
    with torch.no_grad():
        found = block(x)
        after, beside = block.attn.adapter, block.mlp.adapter
        attended = type(block.attn).forward(block.attn, block.norm1(x))
        y = x + attended + after(attended)
        normed = block.norm2(y)
        expected = y + type(block.mlp).forward(block.mlp, normed) + 0.5 * beside(normed)
    torch.testing.assert_close(found, expected)
    assert len(adapters(sam)) == 2 * 2


def test_places_in_the_decoder_by_hand():
    sam = fill_adapters(add_adapters(tiny_sam(SIZE), encoder=False))
    transformer = sam.mask_decoder.transformer
    assert len(adapters(sam)) == 2 * 2 + 1
    layer = transformer.layers[1]
    queries, keys, query_pe, key_pe = (torch.randn(1, n, WIDTH) for n in (3, 16, 3, 16))

    def adapted(attention, *inputs):
        output = type(attention).forward(attention, *inputs)
        return output + layer.self_attn.adapter(output)

    with torch.no_grad():
        found = layer(queries, keys, query_pe, key_pe)
        q = queries + query_pe
        queries = layer.norm1(queries + adapted(layer.self_attn, q, q, queries))
        attended = adapted(layer.cross_attn_token_to_image, queries + query_pe, keys + key_pe, keys)
        queries = layer.norm2(queries + attended)
        mlp = type(layer.mlp).forward(layer.mlp, queries)
        queries = layer.norm3(queries + mlp + 0.5 * layer.mlp.adapter(queries))
        attended = adapted(
            layer.cross_attn_image_to_token, keys + key_pe, queries + query_pe, queries
        )
        keys = layer.norm4(keys + attended)
    torch.testing.assert_close(found, (queries, keys))
    last = transformer.final_attn_token_to_image.adapter
    assert transformer.norm_final_attn.adapter is last


def test_fused_attention_and_deep_copies_keep_their_adapters():
    sam = fill_adapters(add_adapters(tiny_sam(SIZE)))
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = sam.image_encoder(image)
        twin = copy.deepcopy(sam)
        fill_adapters(sam, seed=1)
        torch.testing.assert_close(twin.image_encoder(image), expected)
        fused = use_fused_attention(twin.image_encoder)(image)
    torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-5)


def test_released_initialisation_changes_the_pretrained_function():
    torch.manual_seed(0)
    sam = tiny_sam(SIZE)
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        before = sam.image_encoder(image)
        after = add_adapters(sam, zero_output=False).image_encoder(image)
    assert (after - before).abs().max() > 0.01


def test_adapters_are_added_once_and_first():
    sam = add_adapters(tiny_sam(SIZE))
    with pytest.raises(ValueError, match="has adapters already"):
        add_adapters(sam)
    with pytest.raises(ValueError, match="add the adapters before"):
        add_adapters(add_residual_to_self_attention(tiny_sam(SIZE)))


def teacher(classes=3, prompts="tokens", **changes):
    torch.manual_seed(0)
    sam = fill_adapters(add_adapters(tiny_sam(SIZE)))
    return AdaptedSam(
        sam, prompts=Tokens(classes, WIDTH) if prompts == "tokens" else None, **changes
    )


def test_classes_in_one_call_are_the_classes_one_by_one():
    adapted, sam = (lambda t: (t, t.sam))(teacher())
    image, masks = torch.rand(2, 3, SIZE, SIZE), torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        found = adapted(image, masks)
        assert found.shape == masks.shape
        embedding = sam.image_encoder(sam.preprocess(255 * image))
        tokens = adapted.prompts(embedding)
        for b in range(2):
            for c in range(3):
                small = functional.interpolate(
                    masks[b : b + 1, c : c + 1], (16, 16), mode="bilinear"
                )
                dense = sam.prompt_encoder(None, None, small)[1]
                single, _ = sam.mask_decoder(
                    image_embeddings=embedding[b : b + 1],
                    image_pe=sam.prompt_encoder.get_dense_pe(),
                    sparse_prompt_embeddings=tokens[b, c][None],
                    dense_prompt_embeddings=dense,
                    multimask_output=False,
                )
                full = functional.interpolate(single, (SIZE, SIZE), mode="bilinear")[0, 0]
                torch.testing.assert_close(found[b, c], full, rtol=1e-4, atol=1e-4)


def test_box_prompts_take_the_place_of_tokens():
    adapted = teacher(prompts=None)
    sam = adapted.sam
    image, masks = torch.rand(1, 3, SIZE, SIZE), torch.randn(1, 2, SIZE, SIZE)
    boxes = torch.tensor([[[4.0, 8, 40, 30], [0, 0, 63, 63]]])
    with torch.no_grad():
        found = adapted(image, masks, boxes)
        embedding = sam.image_encoder(sam.preprocess(255 * image)).expand(2, -1, -1, -1)
        small = functional.interpolate(masks[0].unsqueeze(1), (16, 16), mode="bilinear")
        low_res, _ = decode_batch(sam, embedding, *sam.prompt_encoder(None, boxes[0], small))
    expected = functional.interpolate(low_res[:, :1], (SIZE, SIZE), mode="bilinear")[:, 0]
    torch.testing.assert_close(found[0], expected)
    with pytest.raises(ValueError, match="boxes and a prompts network exclude each other"):
        teacher(classes=2)(image, masks, boxes)


def test_normalisation_is_sam_s_or_none():
    seen = []
    image = torch.rand(1, 3, SIZE, SIZE)
    for normalise in (True, False):
        adapted = teacher(normalise=normalise)
        adapted.sam.image_encoder.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
        adapted(image, torch.zeros(1, 3, SIZE, SIZE))
    torch.testing.assert_close(
        seen[0], (255 * image - adapted.sam.pixel_mean) / adapted.sam.pixel_std
    )
    torch.testing.assert_close(seen[1], image)


@pytest.mark.parametrize("normalise", [True, False])
def test_image_of_another_size_and_shape(normalise):
    adapted = teacher(normalise=normalise)
    image, masks = torch.rand(2, 3, 24, 48), torch.randn(2, 3, 24, 48)
    assert adapted(image, masks).shape == masks.shape
    prompt = adapted._mask_prompt(masks, (24, 48))
    assert prompt.shape == (6, 1, 16, 16)
    inside = functional.interpolate(masks[0, :1][None], (8, 16), mode="bilinear")
    torch.testing.assert_close(prompt[0, 0, :8], inside[0, 0])
    assert (prompt[0, 0, 8:] == inside.min().clamp(max=0)).all()
    with pytest.raises(ValueError, match="must have the batch and the size of the image"):
        adapted(image, masks[:, :, :12])


def test_gradient_reaches_adapters_and_prompts_but_not_the_mask_prompt():
    adapted = teacher()
    masks = torch.randn(1, 3, SIZE, SIZE, requires_grad=True)
    adapted(torch.rand(1, 3, SIZE, SIZE), masks).square().mean().backward()
    assert masks.grad is None
    assert [name for name, p in adapted.named_parameters() if p.grad is None] == []
    frozen = [p for n, p in adapted.sam.named_parameters() if ".adapter." not in n]
    assert all(p.grad is None for p in frozen)


def test_frozen_sam_is_not_saved_but_moves_along():
    adapted = teacher()
    assert {name.split(".")[0] for name in adapted.state_dict()} == {"adapters", "prompts"}
    adapted.double()
    assert {p.dtype for p in adapted.sam.parameters()} == {torch.float64}
    other = teacher()
    fill_adapters(other.sam, seed=5)
    other.load_state_dict(adapted.state_dict())
    image, masks = torch.rand(1, 3, SIZE, SIZE), torch.zeros(1, 3, SIZE, SIZE)
    torch.testing.assert_close(other(image, masks), adapted.float()(image, masks))


def test_released_padding_norms_the_padding_too():
    sam = tiny_sam(SIZE)
    block = sam.image_encoder.blocks[0]
    x = torch.randn(1, 4, 4, WIDTH)
    with torch.no_grad():
        # 4 x 4 tokens are one window of 14 x 14, padded.
        windows, _ = window_partition(x, 14)
        attended = block.attn(block.norm1(windows))[:, :4, :4]
        y = x + attended
        expected = y + block.mlp(block.norm2(y))
        usual = block(x)
        found = normalise_after_padding(sam).image_encoder.blocks[0](x)
    torch.testing.assert_close(found, expected)
    assert (found - usual).abs().max() > 1e-3


def test_released_self_attention_by_hand():
    sam = tiny_sam(SIZE)
    plain = [copy.deepcopy(layer.self_attn) for layer in sam.mask_decoder.transformer.layers]
    add_residual_to_self_attention(sam)
    tokens, positions = torch.randn(1, 3, WIDTH), torch.randn(1, 3, WIDTH)
    with torch.no_grad():
        for layer, attention, x in zip(
            sam.mask_decoder.transformer.layers, plain, (tokens, tokens + positions), strict=True
        ):
            out = layer.self_attn(q=x, k=x, v=tokens)
            out = out if layer.skip_first_layer_pe else tokens + out
            torch.testing.assert_close(out, x + attention(x, x, x))


def test_released_decoder_has_random_mlps_and_nothing_else_random():
    sam = tiny_sam(SIZE)
    before = copy.deepcopy(sam.state_dict())
    randomise_decoder_mlps(sam)
    changed = {n for n, value in sam.state_dict().items() if not torch.equal(value, before[n])}
    stem = "mask_decoder.transformer.layers"
    assert changed == {
        f"{stem}.{i}.mlp.{lin}.{kind}"
        for i in (0, 1)
        for lin in ("lin1", "lin2")
        for kind in ("weight", "bias")
    }
