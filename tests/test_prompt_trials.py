"""The simulated user of any SAM, and the pictures of a promptable model."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from tiny_sam import tiny_sam

from lib.display import hand_prompt, style
from lib.display.promptable import (
    embedding_colours,
    prompt_chart,
    show_answers,
    show_embeddings,
    show_scenes,
)
from lib.sam.decode import Decoded
from lib.sam.frozen import FrozenSam
from lib.training.prompt_trials import (
    box_and_click_masks,
    box_prompts,
    largest_objects,
    mask_ious,
    simulated_clicks,
    through_grid,
)


class Stubborn:
    """A teacher that always answers with the left half; it remembers what it was asked."""

    def __init__(self):
        self.asked, self.multimask = [], []

    def decode(self, embeddings, prompts, image_index, size, multimask):
        self.asked.append(list(prompts))
        self.multimask.append(multimask)
        logits = -torch.ones(len(prompts), 1, *size)
        logits[..., : size[1] // 2] = 1
        return Decoded(logits, torch.ones(len(prompts), 1), logits[..., ::2, ::2])


class Two:
    """A data set of two given masks; each image is as bright as half its number."""

    title = "two"

    def __init__(self, masks):
        self.mask = masks.__getitem__

    def __len__(self):
        return 2

    def image(self, i):
        return torch.full((3, 8, 12), i / 2)


@pytest.fixture
def target():
    """An object at rows 1-6, columns 4-7 of an 8 x 12 picture, whose left half ends at column 5."""
    mask = torch.zeros(1, 8, 12, dtype=torch.bool)
    mask[0, 1:7, 4:8] = True
    return mask


def test_the_first_click_is_inside_and_the_next_corrects_the_largest_error(target):
    teacher = Stubborn()
    simulated_clicks(teacher, torch.zeros(1), target, 2)
    (first,), (second,) = teacher.asked
    x, y = first.points[0].int().tolist()
    assert target[0, y, x]
    assert (first.labels.tolist(), first.mask_logits) == ([1], None)
    # The answer invents 48 - 12 px on the left and misses 12 px: the click belongs to the former.
    x, y = second.points[1].int().tolist()
    assert second.labels.tolist() == [1, 0]
    assert x < 6
    assert not target[0, y, x]
    assert second.mask_logits.shape == (4, 6)


def test_previous_decides_on_the_mask_prompt(target):
    teacher = Stubborn()
    simulated_clicks(teacher, torch.zeros(1), target, 2, previous=lambda low_res: None)
    assert teacher.asked[1][0].mask_logits is None
    assert teacher.multimask == ["auto", "auto"]


def test_all_clicks_but_the_first_can_take_the_single_mask(target):
    teacher = Stubborn()
    simulated_clicks(teacher, torch.zeros(1), target, 3, single_after_first=True)
    assert teacher.multimask == ["auto", False, False]


def test_a_real_sam_answers_each_round():
    sam = tiny_sam()
    side = sam.image_encoder.img_size
    targets = torch.zeros(2, side, side, dtype=torch.bool)
    targets[:, side // 4 : side // 2, side // 4 : side // 2] = True
    teacher = FrozenSam(sam)
    embeddings = teacher.encode(torch.rand(2, 3, side, side, generator=torch.manual_seed(0)))
    answers = simulated_clicks(teacher, embeddings, targets, 3)
    assert [tuple(a.logits.shape) for a in answers] == [(2, 1, side, side)] * 3


def test_largest_objects_skip_empty_masks(target):
    masks = [torch.zeros(8, 12).long(), target[0].long()]
    masks[1][0, 0] = 1  # a stray pixel, not connected
    data = Two(masks)
    images, found = largest_objects(data, 5)
    assert torch.equal(found, target)
    assert torch.equal(images, torch.full((1, 3, 8, 12), 0.5))
    masks[1].zero_()
    with pytest.raises(ValueError, match=r"none of the 2 masks .*other indices"):
        largest_objects(data, 5)


def test_only_the_masks_that_were_looked_at_are_called_empty(target):
    data = Two([target[0].long(), torch.zeros(8, 12).long()])
    with pytest.raises(ValueError, match="none of the 1 masks"):
        largest_objects(data, 5, indices=iter([1]))
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        largest_objects(data, 0)


def test_boxes_and_ious(target):
    assert box_prompts(target)[0].box.tolist() == [4, 1, 7, 6]
    half = target.clone()
    half[0, 1:4] = False
    empty = torch.zeros_like(target)
    pairs = torch.cat([target, half, empty, empty])
    assert mask_ious(pairs, torch.cat([target, target, target, empty])) == [1, 0.5, 0, 1]


def test_tokens_that_differ_get_different_colours_in_all_images():
    embeddings = torch.zeros(2, 4, 2, 3)
    embeddings[:, 0, 0], embeddings[:, 1, 1] = 1.0, 1.0  # the upper row differs from the lower
    embeddings[0, 2, 0, 0], embeddings[1, 3, 1, 1] = 0.1, 0.2
    colours = embedding_colours(embeddings)
    assert colours.shape == (2, 3, 2, 3)
    assert [colours.min(), colours.max()] == [0, 1]
    assert abs(colours[0, 0, 0, 2] - colours[0, 0, 1, 2]) > 0.9
    assert torch.equal(colours[0, :, 0, 2], colours[1, :, 0, 2])


def test_a_reference_decides_the_colours():
    reference = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    reference = reference * torch.tensor([4.0, 3.0, 2.0, 0.1])[:, None, None]
    one_by_one = [embedding_colours(part[None], reference=reference) for part in reference]
    torch.testing.assert_close(torch.cat(one_by_one), embedding_colours(reference))
    # A picture without contrast keeps the colour of the mean; by itself it would be stretched.
    flat = reference.mean((0, 2, 3))[:, None, None] + 1e-3 * reference[:1]
    colours = embedding_colours(flat, reference=reference)
    assert colours.amax((2, 3)).sub(colours.amin((2, 3))).max() < 0.01
    assert embedding_colours(flat).max() == 1


def test_prompt_chart_draws_every_score():
    scores = pd.DataFrame({"box": [0.8, 0.7], "ellipse": [0.6, 0.9]}, index=["polyp", "lung"])
    ax = prompt_chart(scores, floor="ellipse").axes[0]
    drawn = {s.get_label(): s.get_offsets()[:, 0].tolist() for s in ax.collections}
    assert drawn == {"box": [0.8, 0.7], "ellipse": [0.6, 0.9]}


def test_a_contact_sheet_outlines_every_object_in_its_own_colour():
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 1:3, 1:3], masks[1, 4:7, 4:7] = True, True
    scene = SimpleNamespace(image=np.full((8, 8, 3), 51, np.uint8), masks=masks)
    figure = show_scenes([scene, scene, scene], titles=["a", "b", "c"], columns=2)
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "c", ""]
    for ax in figure.axes[:3]:
        assert np.allclose(ax.images[0].get_array(), 0.2)
        colours = [to_hex(line.get_edgecolor()[0]).upper() for line in ax.collections]
        assert colours == list(style.CLASS_COLOURS[:2])
    assert not figure.axes[3].images


def test_answers_stand_in_rows_under_their_images():
    targets = torch.zeros(2, 8, 8, dtype=torch.bool)
    targets[:, :, 4:] = True
    answers = {"before": ~targets, "after": targets}
    prompts = [hand_prompt((8, 8), box=(4, 0, 7, 7))] * 2
    figure = show_answers(
        torch.rand(2, 3, 8, 8), targets, answers, prompts=prompts, titles=["a", "b"]
    )
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "", ""]
    assert [figure.axes[k].get_ylabel() for k in (0, 2)] == list(answers)
    codes = [ax.images[1].get_array() for ax in figure.axes]
    assert set(codes[0].compressed()) == {1, 2}  # all missed, the rest a false alarm
    assert set(codes[2].compressed()) == {0}
    assert [len(ax.patches) for ax in figure.axes] == [1, 1, 0, 0]


def test_embeddings_stand_below_their_images():
    images, targets = torch.rand(2, 3, 8, 8), torch.ones(2, 8, 8, dtype=torch.bool)
    figure = show_embeddings(images, targets, torch.rand(2, 3, 2, 2), titles=["a", "b"])
    assert [ax.images[0].get_array().shape[0] for ax in figure.axes] == [8, 8, 2, 2]
    assert [len(ax.collections) for ax in figure.axes] == [1, 1, 0, 0]


def test_box_and_clicks_are_what_the_sam_answers_to_each():
    teacher = FrozenSam(tiny_sam())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(2, 64, 64, dtype=torch.bool)
    targets[:, 10:30, 20:50] = True
    boxes = box_prompts(targets)
    drawn = box_and_click_masks(teacher, images, targets, boxes, clicks=2)
    assert list(drawn) == ["box", "1 click", "2 clicks"]
    embeddings = teacher.encode(images)
    expected = teacher.decode(embeddings, boxes, range(2), (64, 64)).logits[:, 0] > 0
    assert torch.equal(drawn["box"], expected)
    clicks = simulated_clicks(teacher, embeddings, targets, 2)
    assert torch.equal(drawn["2 clicks"], clicks[1].logits[:, 0] > 0)


def test_a_grid_keeps_whole_cells_and_loses_thin_lines():
    targets = torch.zeros(2, 16, 16, dtype=torch.bool)
    targets[0, :8], targets[1, 5] = True, True
    assert torch.equal(through_grid(targets, (4, 4))[0], targets[0])
    assert not through_grid(targets, (4, 4))[1].any()
    assert torch.equal(through_grid(targets, (16, 16)), targets)
