"""Prompts on masks small enough to be worked out by hand."""

import math

import numpy as np
import pytest
import torch
from segment_anything.utils.amg import batched_mask_to_box

from lib.prompts import (
    PromptConfig,
    add_false_positives,
    drop_prompts,
    jitter_boxes,
    move_points,
    prompts_for_images,
    prompts_from_mask,
    prompts_from_probability,
)
from lib.prompts.noise import free_places
from lib.prompts.points import ERODED_SHARE, border_distance


def rectangle(height, width, *, rows, columns):
    mask = torch.zeros(height, width)
    mask[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = 1
    return mask


def one(mask, **settings):
    """The only prompt of a mask, with no component dropped for its size."""
    (prompt,) = prompts_from_probability(mask, PromptConfig(min_area=0, **settings))
    return prompt


def test_rectangle_box_is_inclusive_and_equals_segment_anything():
    mask = rectangle(12, 20, rows=(3, 7), columns=(5, 15))
    prompt = one(mask, mode="box")
    assert prompt.box.tolist() == [5, 3, 15, 7]
    assert prompt.box.tolist() == batched_mask_to_box(mask.bool()[None])[0].tolist()
    assert prompt.points is None
    assert prompt.labels is None
    assert prompt.mask_logits is None
    assert torch.equal(prompt.component, mask.bool())


def test_distance_points_of_a_rectangle():
    # 5 x 11: depths 1, 2, 3; the deepest row is y = 5 with x = 7..13, its middle x = 10.
    # Farthest from (10, 5) with depth >= 0.3 * 3 = 0.9 (all pixels): the corners, the first in
    # reading order is (5, 3); farthest from both, (15, 7): nearest chosen (10, 5), 29 squared,
    # like (15, 3): 29, which comes first in reading order.
    prompt = one(rectangle(12, 20, rows=(3, 7), columns=(5, 15)), mode="points")
    assert prompt.points.tolist() == [[10, 5], [5, 3], [15, 3]]
    assert prompt.labels.tolist() == [1, 1, 1]
    assert prompt.points.dtype == torch.float32
    assert prompt.labels.dtype == torch.int64


def test_further_points_stay_in_the_eroded_component():
    mask = torch.zeros(60, 60)
    rows, columns = np.ogrid[:60, :60]
    mask[torch.from_numpy((rows - 25) ** 2 + (columns - 30) ** 2 <= 20**2)] = 1
    prompt = one(mask, mode="points", positives=6)
    depth = border_distance(mask.bool().numpy())
    x, y = prompt.points[:, 0].long(), prompt.points[:, 1].long()
    assert prompt.points[0].tolist() == [30, 25]
    assert (depth[y, x] >= ERODED_SHARE * depth.max()).all()
    assert torch.cdist(prompt.points, prompt.points).fill_diagonal_(99).min() > 10


def test_ring_is_clicked_on_the_ring_though_its_centroid_is_the_hole():
    mask = rectangle(11, 11, rows=(1, 9), columns=(1, 9))
    mask[3:8, 3:8] = 0
    for rule in ("centroid", "distance", "random"):
        prompt = one(mask, mode="points", point_rule=rule)
        assert all(mask[int(y), int(x)] == 1 for x, y in prompt.points.tolist())
    # Nearest ring pixels to the centroid (5, 5) are 3 away; reading order takes the upper one.
    assert one(mask, mode="points", point_rule="centroid", positives=1).points.tolist() == [[5, 2]]


def test_centroid_of_an_l_shape():
    mask = torch.zeros(6, 6)
    mask[0:5, 0] = 1  # five pixels down, then three to the right along y = 4
    mask[4, 1:4] = 1
    # centroid x = (1 + 2 + 3) / 8 = 0.75, y = (0 + 1 + 2 + 3 + 4 * 4) / 8 = 2.75, not on the L:
    # squared distance 0.625 to (0, 3), 1.125 to (0, 2), 1.625 to (1, 4).
    prompt = one(mask, mode="points", point_rule="centroid", positives=1)
    assert prompt.points.tolist() == [[0, 3]]


def test_single_pixel_and_two_pixels_never_repeat_a_point():
    pixel = torch.zeros(8, 8)
    pixel[7, 4] = 1
    prompt = one(pixel)
    assert prompt.box.tolist() == [4, 7, 4, 7]
    assert prompt.points.tolist() == [[4, 7]]
    pixel[7, 5] = 1
    assert one(pixel).points.tolist() == [[4, 7], [5, 7]]
    assert len(one(pixel, point_rule="random").points) == 2


def test_component_touching_the_border_is_clicked_away_from_it():
    mask = rectangle(9, 9, rows=(0, 4), columns=(0, 4))
    assert one(mask, positives=1).points.tolist() == [[2, 2]]
    assert one(mask).box.tolist() == [0, 0, 4, 4]


def test_all_ones_and_all_zeros():
    full = one(torch.ones(7, 9), negatives=2, padding=0.5)
    assert full.box.tolist() == [0, 0, 8, 6]
    assert full.points[0].tolist() == [4, 3]
    assert full.labels.tolist() == [1, 1, 1]  # no background, no negative
    assert prompts_from_probability(torch.zeros(7, 9), PromptConfig()) == []
    # The threshold itself is background: probability > 0.5, not >=.
    assert prompts_from_probability(torch.full((7, 9), 0.5), PromptConfig()) == []


def test_components_largest_first_small_dropped_rest_kept():
    mask = torch.zeros(20, 50)  # 1000 pixels
    mask[0:2, 0:2] = 1  # 4
    mask[5:8, 5:8] = 1  # 9
    mask[10:14, 30:34] = 1  # 16
    mask[19, 49] = 1  # 1
    corners = lambda config: [p.box[:2].tolist() for p in prompts_from_probability(mask, config)]  # noqa: E731
    assert corners(PromptConfig()) == [[30, 10], [5, 5], [0, 0]]  # 0.2 % of 1000 = 2 pixels
    assert corners(PromptConfig(keep=2)) == [[30, 10], [5, 5]]
    assert corners(PromptConfig(min_area=0.009)) == [[30, 10], [5, 5]]  # 9 of 1000 is not below
    assert len(corners(PromptConfig(min_area=0, keep=9))) == 4


def test_diagonal_neighbours_are_one_component():
    mask = torch.zeros(4, 4)
    mask[1, 1] = mask[2, 2] = 1
    assert one(mask).box.tolist() == [1, 1, 2, 2]


def test_padding_is_relative_to_each_side_and_stops_at_the_image():
    mask = rectangle(40, 40, rows=(10, 19), columns=(2, 21))  # 10 high, 20 wide
    assert one(mask, padding=0.1).box.tolist() == [0, 9, 23, 20]
    assert one(mask, padding=5.0).box.tolist() == [0, 0, 39, 39]


def test_negatives_outside_box_and_outside_object():
    mask = rectangle(40, 40, rows=(10, 19), columns=(10, 19))
    mask[10, 10:19] = 0  # leaves background inside the box
    mask[30:34, 24:28] = 1  # a second object, where no negative may fall
    config = {"negatives": 8, "mode": "points", "min_area": 0}
    for rule in ("distance", "random"):
        for region, inside in (("outside_box", False), ("outside_object", True)):
            settings = PromptConfig(negative_region=region, point_rule=rule, **config)
            prompt = prompts_from_probability(mask, settings)[0]
            negatives = prompt.points[prompt.labels == 0]
            assert len(negatives) == 8
            for x, y in negatives.tolist():
                assert mask[int(y), int(x)] == 0
                assert (10 <= x <= 19 and 10 <= y <= 19) == inside
                assert 5 <= x <= 24  # at most half a side away
                assert 5 <= y <= 24


def test_mask_logits_are_scaled_and_signed():
    probability = torch.tensor([[0.5, 0.9, 1.0], [0.0, 0.01, 0.2]])
    prompt = one(probability, mode="mask")
    scale = 10 / math.log(99)
    expected = [[0, math.log(9) * scale, 10], [-10, -10, math.log(0.25) * scale]]
    torch.testing.assert_close(prompt.mask_logits, torch.tensor(expected))
    assert prompt.points is None
    assert prompt.box is None
    # Zero lies at the threshold, whatever the threshold.
    at_threshold = one(torch.tensor([[0.3, 0.9]]), threshold=0.3, mode="mask").mask_logits[0, 0]
    assert float(at_threshold) == pytest.approx(0, abs=1e-6)


def test_mask_logits_ask_for_one_component_only():
    probability = torch.full((10, 20), 0.1)
    probability[2:6, 2:6] = 0.9
    probability[2:5, 12:15] = 0.8
    first, second = prompts_from_probability(probability, PromptConfig(mode="box+mask"))
    assert torch.equal(first.mask_logits > 0, first.component)
    assert torch.equal(second.mask_logits > 0, second.component)
    assert first.mask_logits[3, 13] == -second.mask_logits[3, 13]


def test_random_points_follow_the_seed_alone():
    mask = rectangle(30, 30, rows=(5, 24), columns=(5, 24))
    draw = lambda seed: one(mask, point_rule="random", seed=seed).points.tolist()  # noqa: E731
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_batch_counts_images_without_prompt():
    two = rectangle(20, 20, rows=(1, 8), columns=(1, 8)) + rectangle(
        20, 20, rows=(12, 18), columns=(12, 18)
    )
    batch = prompts_for_images(torch.stack([two, torch.zeros(20, 20), two]), PromptConfig())
    assert batch.image_index == [0, 0, 2, 2]
    assert len(batch.prompts) == 4
    assert batch.without_prompt == [1]


def test_rounding_errors_of_resizing_are_forgiven():
    prompt = one(torch.tensor([[-1e-7, 1 + 1e-6]]), mode="mask")
    assert prompt.mask_logits.tolist() == [[-10, 10]]


@pytest.mark.parametrize(
    ("probability", "message"),
    [
        (torch.full((4, 4), float("nan")), "NaN"),
        (torch.full((4, 4), 1.5), "softmax or sigmoid"),
        (torch.zeros(1, 4, 4), "H x W"),
        (torch.zeros(4, 4, dtype=torch.int64), "floating-point"),
    ],
)
def test_bad_probability_is_refused(probability, message):
    with pytest.raises(ValueError, match=message):
        prompts_from_probability(probability, PromptConfig())


@pytest.mark.parametrize(
    "setting",
    [
        {"mode": "points+points"},
        {"mode": "scribble"},
        {"point_rule": "best"},
        {"negative_region": "anywhere"},
        {"threshold": 1.0},
        {"positives": 0},
        {"keep": 0},
        {"padding": -0.1},
    ],
)
def test_bad_configuration_names_its_field(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        PromptConfig(**setting)


def test_mask_prompts_equal_probability_prompts_and_refuse_probabilities():
    mask = rectangle(20, 20, rows=(3, 9), columns=(4, 9))
    (prompt,) = prompts_from_mask(mask.long() * 2, PromptConfig(mode="box"))
    assert prompt.box.tolist() == [4, 3, 9, 9]
    with pytest.raises(ValueError, match="prompts_from_probability"):
        prompts_from_mask(mask, PromptConfig())


# --- noise -----------------------------------------------------------------------------------


@pytest.fixture
def prompts():
    mask = rectangle(200, 200, rows=(50, 89), columns=(40, 119)) + rectangle(
        200, 200, rows=(150, 169), columns=(10, 29)
    )
    return prompts_from_probability(mask, PromptConfig(mode="points+box+mask"))


def test_jitter_has_the_stated_spread_and_zero_changes_nothing(prompts):
    boxes = torch.stack(
        [jitter_boxes(prompts[:1], fraction=0.1, seed=seed)[0].box for seed in range(400)]
    )
    spread = (boxes - prompts[0].box).std(dim=0)  # sides 80 x 40: 8 and 4 pixels
    torch.testing.assert_close(spread, torch.tensor([8.0, 4.0, 8.0, 4.0]), rtol=0.12, atol=0)
    same = jitter_boxes(prompts, fraction=0.0, seed=3)
    assert [p.box.tolist() for p in same] == [p.box.tolist() for p in prompts]


def test_jitter_stays_ordered_and_inside(prompts):
    for seed in range(50):
        for prompt in jitter_boxes(prompts, fraction=2.0, seed=seed):
            x0, y0, x1, y1 = prompt.box.tolist()
            assert 0 <= x0 <= x1 <= 199
            assert 0 <= y0 <= y1 <= 199


def test_moved_points_have_the_stated_spread(prompts):
    moved = [move_points(prompts[:1], fraction=0.05, seed=seed)[0].points for seed in range(400)]
    spread = (torch.stack(moved) - prompts[0].points).std(dim=0).mean(dim=0)
    torch.testing.assert_close(spread, torch.tensor([4.0, 2.0]), rtol=0.12, atol=0)


def test_noise_is_seeded_and_leaves_its_input_alone(prompts):
    before = prompts[0].box.clone(), prompts[0].points.clone()
    again = [jitter_boxes(prompts, fraction=0.1, seed=5)[1].box for _ in range(2)]
    assert torch.equal(*again)
    move_points(prompts, fraction=0.1, seed=5)
    assert torch.equal(prompts[0].box, before[0])
    assert torch.equal(prompts[0].points, before[1])


def test_drop(prompts):
    assert drop_prompts(prompts, fraction=0, seed=0) == prompts
    assert drop_prompts(prompts, fraction=1, seed=0) == []
    many = prompts * 10_000  # standard error of the share: 0.003
    share = len(drop_prompts(many, fraction=0.25, seed=0)) / len(many)
    assert share == pytest.approx(0.75, abs=0.01)


def test_false_positives_lie_on_background_and_keep_the_kind(prompts):
    for seed in range(20):
        *given, invented = add_false_positives(prompts, count=1, seed=seed)
        assert given == prompts
        assert not any((invented.component & prompt.component).any() for prompt in prompts)
        source = next(p for p in prompts if p.component.sum() == invented.component.sum())
        assert torch.equal(invented.box[2:] - invented.box[:2], source.box[2:] - source.box[:2])
        assert torch.equal(invented.mask_logits > 0, invented.component)
        assert all(invented.component[int(y), int(x)] for x, y in invented.points.tolist())
    assert add_false_positives([], count=3, seed=0) == []


def test_no_room_for_a_false_positive():
    full = prompts_from_probability(torch.ones(8, 8), PromptConfig())
    assert len(add_false_positives(full, count=2, seed=0)) == 1


def test_free_places_against_trying_them_all():
    generator = np.random.default_rng(0)
    occupied = generator.random((9, 7)) < 0.15
    component = np.zeros((9, 7), dtype=bool)
    component[3:5, 2:5] = True
    expected = [
        [row - 3, column - 2]
        for row in range(8)
        for column in range(5)
        if not occupied[row : row + 2, column : column + 3].any()
    ]
    assert free_places(occupied, component).tolist() == expected
