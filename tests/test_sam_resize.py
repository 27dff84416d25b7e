"""Position tables at another image size."""

import copy

import pytest
import torch
from segment_anything.modeling.image_encoder import get_rel_pos
from tiny_sam import tiny_sam

from lib.sam.resize import resize_absolute, resize_positions, resize_relative


def test_sizes_that_each_part_knows():
    sam = resize_positions(tiny_sam(512), 256)
    encoder, prompts = sam.image_encoder, sam.prompt_encoder
    assert encoder.img_size == 256
    assert encoder.pos_embed.shape == (1, 16, 16, 32)
    assert encoder.blocks[0].attn.rel_pos_h.shape == (27, 8)  # windows keep 2 * 14 - 1
    assert encoder.blocks[1].attn.rel_pos_w.shape == (31, 8)  # global: 2 * 16 - 1
    assert prompts.input_image_size == (256, 256)
    assert prompts.image_embedding_size == (16, 16)
    assert prompts.mask_input_size == (64, 64)
    assert sam.image_encoder(torch.rand(1, 3, 256, 256)).shape == (1, 32, 16, 16)


def test_window_tables_are_kept_even_when_they_look_global():
    # At 224 px there are 14 x 14 tokens: global and window tables have the same length.
    sam = tiny_sam(224)
    window = sam.image_encoder.blocks[0].attn.rel_pos_h.detach().clone()
    resize_positions(sam, 256)
    assert torch.equal(sam.image_encoder.blocks[0].attn.rel_pos_h, window)
    assert sam.image_encoder.blocks[1].attn.rel_pos_h.shape == (31, 8)


def test_same_size_changes_nothing():
    sam = tiny_sam(256)
    before = copy.deepcopy(sam.state_dict())
    after = resize_positions(sam, 256).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_resized_model_equals_tables_interpolated_on_the_fly():
    # segment-anything interpolates a relative table of the wrong length inside each forward.
    on_the_fly = tiny_sam(512)
    encoder = on_the_fly.image_encoder
    encoder.pos_embed = torch.nn.Parameter(resize_absolute(encoder.pos_embed.detach(), 16))
    resized = resize_positions(tiny_sam(512), 256)
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(resized.image_encoder(x), encoder(x), atol=1e-5)


def test_relative_table_by_hand():
    table = torch.arange(7.0)[:, None]  # 4 tokens: distances -3 .. 3
    small = resize_relative(table, 2)  # distances -1, 0, 1; each new row spans 7 / 3 old ones
    assert small.flatten().tolist() == pytest.approx([2 / 3, 3.0, 16 / 3])
    assert torch.allclose(get_rel_pos(2, 2, table), get_rel_pos(2, 2, small))


def test_absolute_table_keeps_a_linear_ramp():
    ramp = torch.linspace(0, 1, 64).view(1, 1, 64, 1).expand(1, 64, 64, 1).contiguous()
    small = resize_absolute(ramp, 16)
    assert small.shape == (1, 16, 16, 1)
    # token k of 16 stands where the old tokens 4k .. 4k + 3 stood: their mean
    expected = ramp[0, 0, :, 0].reshape(16, 4).mean(1)
    assert torch.allclose(small[0, 5, 2:-2, 0], expected[2:-2], atol=1e-3)  # off the border


def test_dropping_relative_positions_is_leaving_them_out_and_changes_the_embedding():
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    kept = resize_positions(tiny_sam(512), 256)
    dropped = resize_positions(tiny_sam(512), 256, relative=False)
    without = tiny_sam(256, relative=False)
    state = dropped.state_dict()
    without.load_state_dict({key: state[key] for key in without.state_dict()})
    with torch.no_grad():
        embedding, other = kept.image_encoder(x), dropped.image_encoder(x)
        assert torch.allclose(other, without.image_encoder(x), atol=1e-5)
    change = (embedding - other).norm() / embedding.norm()
    assert change > 0.01  # a thousand times the rounding above
    assert list(dropped.state_dict()) == list(kept.state_dict())


def test_frozen_tables_stay_frozen():
    sam = tiny_sam(512).requires_grad_(False)
    resize_positions(sam, 256)
    assert not any(parameter.requires_grad for parameter in sam.parameters())


@pytest.mark.parametrize("size", [0, -256, 250, 1000])
def test_size_that_is_no_multiple_of_the_patch(size):
    with pytest.raises(ValueError, match=f"image_size={size}.*16"):
        resize_positions(tiny_sam(), size)
