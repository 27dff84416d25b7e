"""The threshold baseline against pictures whose best rule is known."""

import numpy as np
import pytest
import torch

from lib.evaluation.threshold import best_threshold, threshold_masks


def disc(shape=(32, 32), radius=8):
    y, x = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    return (x - 12) ** 2 + (y - 16) ** 2 <= radius**2


def test_finds_the_channel_and_the_side():
    mask = disc()
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    image[1] = torch.where(mask, 0.2, 0.8)  # dark in green, noise elsewhere
    best = best_threshold([(image, mask.long())])
    assert (best.channel, best.polarity, best.dice) == ("green", "dark", 1.0)
    assert np.array_equal(best.mask(image), mask.numpy())
    assert str(best) == "1.00 (dark green)"


def test_mean_over_images_by_hand():
    half = torch.zeros(4, 4, dtype=torch.int64)
    half[:, :2] = 1
    image = half.float().expand(3, -1, -1)
    quarter = half.clone()
    quarter[2:] = 0
    # The first image scores 1; the second 2 * 4 / (8 + 4).
    assert best_threshold([(image, half), (image, quarter)]).dice == pytest.approx((1 + 2 / 3) / 2)


def test_ten_rules_in_complementary_pairs():
    masks = threshold_masks(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert len(masks) == 10
    for channel in {name for name, _ in masks}:
        assert np.array_equal(masks[channel, "bright"], ~masks[channel, "dark"])


def test_a_flat_picture_and_an_empty_mask():
    flat = torch.full((3, 8, 8), 0.5)
    assert best_threshold([(flat, torch.zeros(8, 8, dtype=torch.int64))]).dice == 1.0


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="pairs is empty"):
        best_threshold([])
