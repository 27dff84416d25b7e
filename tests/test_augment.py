"""Augmentation: image and mask move together, and draws depend on the key alone."""

import math

import pytest
import torch

from lib.data.augment import (
    StrongConfig,
    WeakConfig,
    generator_for,
    strong,
    strong_batch,
    weak,
    weak_batch,
)

STILL = {"flip": 0.0, "degrees": 0.0, "scale": (1.0, 1.0), "translate": 0.0}
EVERYTHING = StrongConfig(jitter=1, grey=1, blur=1, noise=1, cutout=1)


def disc(height=64, width=64, row=20.0, column=40.0, radius=9.0):
    """A white disc on black, and its mask."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    mask = ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).long()
    return mask.float().expand(3, -1, -1).clone(), mask


def centre(mask):
    return torch.nonzero(mask).float().mean(dim=0)


@pytest.mark.parametrize("index", range(8))
def test_image_and_mask_move_together(index):
    image, mask = disc()
    moved, target = weak(image, mask, key=(0, 0, index, "weak"))
    assert moved.shape == (3, 64, 64)
    assert target.shape == (64, 64)
    assert target.dtype == torch.int64
    assert moved.min() >= 0
    assert moved.max() <= 1
    overlap = ((moved[0] > 0.5) & (target == 1)).sum() / ((moved[0] > 0.5) | (target == 1)).sum()
    assert overlap > 0.93  # bilinear and nearest differ by less than a pixel at the border


def test_without_ranges_the_weak_view_is_the_image():
    image, mask = torch.rand(3, 20, 30), torch.randint(0, 4, (20, 30))
    moved, target = weak(image, mask, key=(1, 2, 3, "weak"), config=WeakConfig(**STILL))
    torch.testing.assert_close(moved, image, atol=1e-5, rtol=0)
    assert torch.equal(target, mask)


def test_flips_alone_are_exact():
    image, mask = torch.rand(3, 16, 24), torch.randint(0, 2, (16, 24))
    config = WeakConfig(**{**STILL, "flip": 1.0})
    moved, target = weak(image, mask, key=(0, 0, 0, "weak"), config=config)
    torch.testing.assert_close(moved, image.flip(1, 2), atol=1e-5, rtol=0)
    assert torch.equal(target, mask.flip(0, 1))


def test_a_rotation_keeps_distances_in_pixels_when_sides_differ():
    image, mask = disc(height=80, width=120, row=40, column=80, radius=6)
    for index in range(5):
        config = WeakConfig(**{**STILL, "degrees": 60.0})
        _, target = weak(image, mask, key=(0, 0, index, "weak"), config=config)
        offset = centre(target) - torch.tensor([39.5, 59.5])
        assert offset.norm().item() == pytest.approx(math.hypot(0.5, 20.5), abs=0.5)
        assert target.sum().item() == pytest.approx(mask.sum().item(), rel=0.06)


def test_zoom_above_one_enlarges():
    image, mask = disc(row=32, column=32)
    config = WeakConfig(**{**STILL, "scale": (2.0, 2.0)})
    _, target = weak(image, mask, key=(0, 0, 0, "weak"), config=config)
    assert target.sum().item() == pytest.approx(4 * mask.sum().item(), rel=0.05)


def test_mask_values_are_never_mixed():
    mask = torch.randint(0, 2, (40, 40)) * 252 + 3  # 3 and an ignore value of 255
    _, target = weak(torch.rand(3, 40, 40), mask, key=(0, 0, 0, "weak"))
    assert set(target.unique().tolist()) == {3, 255}


def test_the_border_is_mirrored_not_black():
    moved, _ = weak(torch.full((3, 32, 32), 0.7), key=(0, 0, 5, "weak"))
    torch.testing.assert_close(moved, torch.full_like(moved, 0.7))


def test_the_strong_view_moves_nothing():
    """Edges stay where they are: the disc can be read off the strong view."""
    image, mask = disc(radius=14)
    image = 0.3 + 0.4 * image
    config = StrongConfig(blur=0, noise_sigma=0.02)
    for index in range(10):
        view = strong(image, key=(0, 0, index, "strong"), config=config)
        assert view.shape == image.shape
        grey = view.mean(dim=0)
        found = (grey > grey[mask == 1].mean() / 2 + grey[mask == 0].mean() / 2).long()
        assert (found == mask).float().mean() > 0.97


def test_the_strong_view_stays_in_range_and_leaves_its_input_alone():
    image = torch.rand(3, 48, 40)
    before = image.clone()
    for index in range(10):
        view = strong(image, key=(0, 0, index, "strong"), config=EVERYTHING)
        assert view.min() >= 0
        assert view.max() <= 1
        assert not torch.equal(view, image)
    assert torch.equal(image, before)


def test_cut_out_covers_at_most_its_area_with_the_mean_colour():
    only = StrongConfig(jitter=0, grey=0, blur=0, noise=0, cutout=1, cutout_area=0.3)
    image = torch.rand(3, 50, 50)
    for index in range(10):
        changed = (strong(image, key=(0, 0, index, "s"), config=only) != image).any(dim=0)
        assert 0 < changed.float().mean() <= 0.32
        rows, columns = changed.any(dim=1), changed.any(dim=0)
        assert changed.sum() == rows.sum() * columns.sum()  # a full rectangle


def test_every_epoch_draws_anew():
    """A released code seeds its workers alike each epoch and so repeats its augmentations."""
    image = torch.rand(3, 32, 32)
    for view in (lambda key: weak(image, key=key)[0], lambda key: strong(image, key=key)):
        epochs = [view((0, epoch, 7, "v")) for epoch in range(4)]
        for first in range(4):
            for second in range(first):
                assert not torch.allclose(epochs[first], epochs[second], atol=1e-3)


@pytest.mark.parametrize("other", [(1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, 0, "b")])
def test_each_part_of_the_key_matters(other):
    draws = torch.rand(4, generator=generator_for((0, 0, 0, "a")))
    assert torch.equal(draws, torch.rand(4, generator=generator_for((0, 0, 0, "a"))))
    assert not torch.equal(draws, torch.rand(4, generator=generator_for(other)))


def test_a_sample_is_augmented_alike_in_any_batch():
    images, masks = torch.rand(4, 3, 32, 32), torch.randint(0, 2, (4, 32, 32))
    indices, epochs = torch.tensor([5, 9, 2, 7]), torch.tensor([3, 3, 4, 4])
    torch.manual_seed(0)
    moved, targets = weak_batch(images, masks, seed=1, epoch=epochs, indices=indices)
    torch.manual_seed(99)  # the global generator plays no part
    order = [2, 0]
    again, some = weak_batch(
        images[order], masks[order], seed=1, epoch=epochs[order], indices=indices[order]
    )
    assert torch.equal(again, moved[order])
    assert torch.equal(some, targets[order])
    alone = strong(images[3], key=(1, 4, 7, "strong"))
    assert torch.equal(strong_batch(images, seed=1, epoch=epochs, indices=indices)[3], alone)


def test_one_epoch_number_serves_a_batch():
    images = torch.rand(2, 3, 16, 16)
    moved, targets = weak_batch(images, seed=0, epoch=6, indices=[3, 4])
    assert targets is None
    assert torch.equal(moved[1], weak(images[1], key=(0, 6, 4, "weak"))[0])


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"image must be 3xHxW float.*uint8"):
        weak(torch.zeros(3, 8, 8, dtype=torch.uint8), key=(0, 0, 0, "w"))
    with pytest.raises(ValueError, match="image must be"):
        strong(torch.zeros(1, 8, 8), key=(0, 0, 0, "w"))
    with pytest.raises(ValueError, match=r"mask is \(8, 9\)"):
        weak(torch.zeros(3, 8, 8), torch.zeros(8, 9), key=(0, 0, 0, "w"))
