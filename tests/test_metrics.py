"""Metrics against closed forms: shifted squares, discs, empty masks."""

import math
import time

import numpy as np
import pytest
import torch
from scipy.spatial.distance import directed_hausdorff

from lib.evaluation.metrics import area_ratio, pooled_dice, score_image, summarise
from lib.evaluation.statistics import bootstrap_interval, paired_difference


def square(top, left, side=10, size=64):
    mask = torch.zeros(size, size, dtype=torch.int64)
    mask[top : top + side, left : left + side] = 1
    return mask


def disc(row, column, radius, size=128):
    rows, columns = np.ogrid[:size, :size]
    return torch.from_numpy((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).long()


def test_shifted_square_by_hand():
    # 10 x 10 squares, 4 columns apart: 6 x 10 common pixels.
    score = score_image(square(20, 24), square(20, 20))
    assert score["dice"] == pytest.approx(2 * 60 / 200)
    assert score["iou"] == pytest.approx(60 / 140)
    # Border of 36 pixels. The left-most column of one is 4 from the other's border: 10 of 36
    # pixels, so the 95th percentile is 4.
    assert score["hd95"] == pytest.approx(4)
    assert (score["intersection"], score["predicted"], score["true"]) == (60, 100, 100)
    assert (score["missed"], score["invented"]) == (0, 0)


def test_average_surface_distance_by_hand():
    # A 1-pixel-wide line against a parallel one 3 rows below: every distance is 3.
    prediction, target = square(5, 5, side=0), square(5, 5, side=0)
    prediction[10, 5:25] = 1
    target[13, 5:25] = 1
    score = score_image(prediction, target)
    assert score["asd"] == pytest.approx(3)
    assert score["hd95"] == pytest.approx(3)
    # A line twice as long: 20 + 40 border pixels; the 20 beyond the end are 1..20 away.
    target[13, 5:25] = 0
    target[10, 5:45] = 1
    assert score_image(prediction, target)["asd"] == pytest.approx(sum(range(1, 21)) / 60)
    assert score_image(prediction, target)["hd95"] == pytest.approx(
        np.quantile([0] * 20 + [*range(1, 21)], 0.95)
    )


def test_concentric_discs():
    score = score_image(disc(64, 64, 40), disc(64, 64, 30))
    assert score["dice"] == pytest.approx(2 * 30**2 / (40**2 + 30**2), abs=0.005)
    assert score["iou"] == pytest.approx(30**2 / 40**2, abs=0.005)
    assert score["hd95"] == pytest.approx(10, abs=0.6)
    assert score["asd"] == pytest.approx(10, abs=0.3)


def test_percentile_is_within_the_true_hausdorff_distance():
    first, second = disc(60, 50, 30), disc(60, 70, 22)
    second[5, 5] = 1  # one stray pixel far away: the maximum sees it, the percentile does not
    points = [np.argwhere(m.numpy()) for m in (first, second)]
    hausdorff = max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])
    score = score_image(second, first)
    assert hausdorff > 40
    assert score["hd95"] < 30


def test_perfect_prediction():
    score = score_image(square(3, 4), square(3, 4))
    assert [score[key] for key in ("dice", "iou", "hd95", "asd")] == [1, 1, 0, 0]


def test_bool_masks_score_like_integers():
    assert score_image(square(20, 24).bool(), square(20, 20).bool()) == score_image(
        square(20, 24), square(20, 20)
    )


def test_empty_masks():
    empty, full = torch.zeros(30, 40, dtype=torch.int64), torch.ones(30, 40, dtype=torch.int64)
    both = score_image(empty, empty)
    assert [both[k] for k in ("dice", "iou", "hd95", "asd", "missed", "invented")] == [
        1, 1, 0, 0, 0, 0,
    ]  # fmt: skip
    missed = score_image(empty, full)
    assert [missed[k] for k in ("dice", "iou", "hd95", "asd", "missed", "invented")] == [
        0, 0, 50, 50, 1, 0,
    ]  # fmt: skip
    invented = score_image(full, empty)
    assert [invented[k] for k in ("dice", "iou", "hd95", "asd", "missed", "invented")] == [
        0, 0, 50, 50, 0, 1,
    ]  # fmt: skip


def test_no_prediction_can_be_worse_than_a_miss():
    corner, opposite = square(0, 0, side=1), square(63, 63, side=1)
    diagonal = score_image(torch.zeros_like(corner), corner)["hd95"]
    assert diagonal == pytest.approx(64 * math.sqrt(2))
    assert score_image(opposite, corner)["hd95"] == pytest.approx(63 * math.sqrt(2))


def test_spacing_in_millimetres():
    rows_apart = score_image(square(24, 20), square(20, 20), spacing=(0.5, 2.0))
    columns_apart = score_image(square(20, 24), square(20, 20), spacing=(0.5, 2.0))
    assert rows_apart["hd95"] == pytest.approx(4 * 0.5)
    assert columns_apart["hd95"] == pytest.approx(4 * 2.0)
    empty = torch.zeros(30, 40, dtype=torch.int64)
    missed = score_image(empty, empty + 1, spacing=(2.0, 1.0))
    assert missed["hd95"] == pytest.approx(math.hypot(60, 40))
    with pytest.raises(ValueError, match="spacing"):
        score_image(empty, empty, spacing=0.0)


def test_row_distance_is_not_what_we_compute():
    # The trap: a "Hausdorff distance" between the rows of two masks taken as points, times 0.95.
    # A disc moved 60 pixels down has the same set of rows, so that number is 0.
    target, prediction = disc(34, 64, 20).numpy(), disc(94, 64, 20).numpy()
    between_rows = 0.95 * max(
        directed_hausdorff(target, prediction)[0], directed_hausdorff(prediction, target)[0]
    )
    score = score_image(torch.from_numpy(prediction), torch.from_numpy(target))
    assert between_rows == 0
    assert score["dice"] == 0
    assert 55 < score["hd95"] <= 60


def test_several_classes_are_scored_one_by_one():
    target, prediction = torch.zeros(2, 32, 32, dtype=torch.int64)
    target[2:12, 2:12] = 1
    prediction[2:12, 2:7] = 1  # half of class 1: Dice 2 * 50 / 150
    target[20:25, 20:25] = 2  # class 2 missed; class 3 absent and not predicted
    score = score_image(prediction, target, classes=4)
    assert score["dice_1"] == pytest.approx(2 / 3)
    assert score["dice_2"] == 0
    assert score["dice_3"] == 1
    assert score["dice"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert score["missed_2"] == 1
    assert score["missed"] == pytest.approx(1 / 3)
    assert score["hd95"] == pytest.approx((score["hd95_1"] + 32 * math.sqrt(2) + 0) / 3)
    summary = summarise([score])
    assert summary["miss_rate"] == pytest.approx(1 / 2)  # two objects are there, one was missed
    assert summary["invention_rate"] == 0
    assert summary["dice_1"] == pytest.approx(2 / 3)
    assert summary["pooled_dice"] == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_pooled_dice_is_not_the_mean_of_dices():
    # A large object hit (Dice 1, 900 pixels), a small one missed (Dice 0, 100 pixels).
    large, small = square(10, 10, side=30), square(10, 10, side=10)
    rows = [score_image(large, large), score_image(torch.zeros_like(small), small)]
    assert summarise(rows)["dice"] == pytest.approx(0.5)
    assert pooled_dice(rows) == pytest.approx(2 * 900 / (900 + 1000))


def test_summary_counts_misses_over_objects_and_inventions_over_empties():
    empty, object_ = square(0, 0, side=0), square(5, 5)
    rows = [
        score_image(object_, object_),
        score_image(empty, object_),
        score_image(empty, empty),
        score_image(object_, empty),
    ]
    summary = summarise(rows)
    assert summary["miss_rate"] == pytest.approx(1 / 2)
    assert summary["invention_rate"] == pytest.approx(1 / 2)
    assert summary["images"] == 4
    assert summary["hd95"] == pytest.approx((0 + 64 * math.sqrt(2) + 0 + 64 * math.sqrt(2)) / 4)
    assert math.isnan(summarise(rows[:2])["invention_rate"])


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (torch.zeros(4, 4), torch.zeros(4, 4).long(), "prediction .*argmax"),
        (torch.zeros(4, 4).long(), torch.full((4, 4), 255), "target .*0/255"),
        (torch.zeros(4, 5).long(), torch.zeros(4, 4).long(), "resize"),
        (torch.zeros(1, 4, 4).long(), torch.zeros(1, 4, 4).long(), "H x W"),
    ],
)
def test_bad_masks_are_refused(prediction, target, message):
    with pytest.raises(ValueError, match=message):
        score_image(prediction, target)


def test_fast_enough_for_a_validation_set():
    pairs = [(disc(50 + i % 20, 60, 25), disc(64, 64, 20 + i % 15)) for i in range(120)]
    start = time.process_time()
    for prediction, target in pairs:
        score_image(prediction, target)
    assert time.process_time() - start < 3


# --- statistics --------------------------------------------------------------------------------


def test_bootstrap_interval_agrees_with_the_normal_approximation():
    values = np.random.default_rng(0).normal(0.7, 0.2, 400)
    low, high = bootstrap_interval(values)
    error = values.std(ddof=1) / math.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert bootstrap_interval(values) == (low, high)
    narrow = bootstrap_interval(values, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_refuses_what_has_no_interval():
    with pytest.raises(ValueError, match="two finite"):
        bootstrap_interval([0.5])
    with pytest.raises(ValueError, match="two finite"):
        bootstrap_interval([0.5, math.nan])


def test_pairing_sees_a_small_constant_gain_among_hard_and_easy_images():
    baseline = {f"image{i}": value for i, value in enumerate(np.linspace(0.1, 0.9, 50))}
    ours = {name: value + 0.02 for name, value in reversed(baseline.items())}
    difference = paired_difference(ours, baseline)
    assert difference.mean == pytest.approx(0.02)
    assert difference.low == pytest.approx(0.02)
    assert difference.high == pytest.approx(0.02)
    assert difference.images == 50


def test_pairing_refuses_other_images():
    with pytest.raises(ValueError, match=r"different images.*'b'"):
        paired_difference({"a": 1.0, "b": 1.0}, {"a": 1.0})


def test_area_ratio_counts_all_pixels_together():
    full, empty = torch.ones(4, 4, dtype=torch.int64), torch.zeros(4, 4, dtype=torch.int64)
    half = full.clone()
    half[:2] = 0
    rows = [score_image(full, half, classes=2), score_image(empty, half, classes=2)]
    assert area_ratio(rows) == 16 / 16
    assert area_ratio(rows[:1]) == 16 / 8
    assert area_ratio([score_image(full, empty, classes=2)]) == math.inf
    assert math.isnan(area_ratio([score_image(empty, empty, classes=2)]))
    kinds = [score_image(full * 2, half, classes=3)]  # 16 pixels of class 2 for 8 of class 1
    assert area_ratio(kinds) == 2


def test_the_interval_of_skewed_scores_stays_among_the_scores():
    """A percentile interval; the "basic" one would reach below 0 here."""
    low, high = bootstrap_interval([0.0] * 9 + [1.0])
    assert 0 <= low < 0.1 < high <= 0.4
