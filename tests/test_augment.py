"""Augmentation: image and mask move together, and draws depend on the key alone."""

import math

import pytest
import torch

from lib.data.augment import (
    CutMixConfig,
    StrongConfig,
    WeakConfig,
    copy_paste_box,
    cutmix,
    cutmix_box,
    cutmix_boxes,
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


def test_views_do_not_depend_on_the_precision_of_the_step():
    images, masks = torch.rand(2, 3, 48, 64), torch.randint(0, 3, (2, 48, 64))
    key = {"seed": 1, "epoch": 2, "indices": [3, 4]}
    image, mask = weak_batch(images, masks, **key)
    bright = strong_batch(images, config=StrongConfig(blur=1.0), **key)
    with torch.autocast("cpu", torch.bfloat16):
        half = weak_batch(images, masks, **key)
        half_bright = strong_batch(images, config=StrongConfig(blur=1.0), **key)
    assert torch.equal(half[0], image)
    assert torch.equal(half[1], mask)
    assert torch.equal(half_bright, bright)


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


# -- boxes to paste --------------------------------------------------------------------------------

ALWAYS = CutMixConfig(probability=1.0)


def is_one_box(mask):
    """All True pixels form one full rectangle."""
    return mask.sum() == mask.any(dim=1).sum() * mask.any(dim=0).sum()


def test_cutmix_boxes_have_the_area_and_ratio_asked_for():
    config = CutMixConfig(probability=1.0, area=(0.1, 0.2), ratio=(0.5, 2.0))
    areas, ratios = [], []
    for index in range(40):
        box = cutmix_box((80, 100), key=(0, 0, index, "c"), config=config)
        assert box.shape == (80, 100)
        assert is_one_box(box)
        areas.append(box.float().mean().item())
        ratios.append((box.any(dim=1).sum() / box.any(dim=0).sum()).item())
    assert 0.095 < min(areas) < 0.12
    assert 0.18 < max(areas) < 0.21
    assert 0.47 < min(ratios) < 0.8
    assert 1.4 < max(ratios) < 2.1


def test_cutmix_pastes_in_its_share_of_images_and_reaches_every_side():
    boxes = torch.stack([cutmix_box((20, 20), key=(0, 0, i, "c")) for i in range(200)])
    assert 0.4 < boxes.flatten(1).any(dim=1).float().mean() < 0.6
    covered = boxes.any(dim=0)
    assert all(side.any() for side in (covered[0], covered[-1], covered[:, 0], covered[:, -1]))


def test_a_box_longer_than_the_image_is_cut():
    config = CutMixConfig(probability=1.0, area=(0.4, 0.4), ratio=(10.0, 10.0))
    box = cutmix_box((30, 30), key=(0, 0, 0, "c"), config=config)
    assert box.any(dim=1).all()
    assert box.any(dim=0).sum() == round((0.04 * 900) ** 0.5)


def test_boxes_depend_on_their_key_alone():
    epochs, indices = torch.tensor([0, 0, 3]), torch.tensor([5, 9, 5])
    boxes = cutmix_boxes((32, 32), seed=1, epoch=epochs, indices=indices, config=ALWAYS)
    alone = cutmix_box((32, 32), key=(1, 3, 5, "cutmix"), config=ALWAYS)
    assert torch.equal(boxes[2], alone)
    assert not torch.equal(boxes[0], boxes[2])
    other = cutmix_boxes((32, 32), seed=1, epoch=epochs, indices=indices, view="b", config=ALWAYS)
    assert not torch.equal(boxes, other)


def test_cutmix_takes_the_box_from_the_sample_before():
    boxes = torch.zeros(3, 4, 4, dtype=torch.bool)
    boxes[0, :2, :2] = boxes[2, 3, 3] = True
    images = torch.rand(3, 3, 4, 4)
    masks = torch.arange(3)[:, None, None].expand(3, 4, 4)
    mixed, labels = cutmix(boxes, images), cutmix(boxes, masks)
    assert torch.equal(mixed[0, :, :2, :2], images[2, :, :2, :2])
    assert torch.equal(mixed[0, :, 2:], images[0, :, 2:])
    assert torch.equal(mixed[1], images[1])
    assert torch.equal(mixed[2, :, 3, 3], images[1, :, 3, 3])
    assert labels[0].unique().tolist() == [0, 2]
    assert labels[2, 3, 3] == 1


def test_the_copy_paste_box_has_two_thirds_of_each_side():
    places = set()
    for step in range(20):
        box = copy_paste_box((30, 60), key=(0, 0, step, "box"))
        assert is_one_box(box)
        assert (box.any(dim=1).sum(), box.any(dim=0).sum()) == (20, 40)
        places.add(tuple(torch.nonzero(box)[0].tolist()))
    assert len(places) > 15


def test_a_shift_reaches_its_share():
    mask = torch.zeros(64, 64, dtype=torch.int64)
    mask[30:34, 30:34] = 1
    config = WeakConfig(**{**STILL, "translate": 0.2})
    moved = [
        centre(weak(mask.float().expand(3, -1, -1), mask, key=(0, 0, i, "w"), config=config)[1])
        for i in range(60)
    ]
    assert 0.17 < ((torch.stack(moved) - 31.5) / 64).abs().max() <= 0.21


def test_a_cut_out_has_the_mean_colour():
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    only = StrongConfig(jitter=0, grey=0, blur=0, noise=0, cutout=1)
    view = strong(image, key=(0, 0, 0, "s"), config=only)
    changed = (view != image).any(0)
    assert changed.any()
    mean = image.mean((1, 2))[:, None].expand(3, int(changed.sum()))
    torch.testing.assert_close(view[:, changed], mean)


def test_blur_grows_with_the_image(monkeypatch):
    sigmas = []

    def blurred(image, size, sigma):
        sigmas.append(sigma)
        return image

    monkeypatch.setattr("lib.data.augment.transforms.gaussian_blur", blurred)
    config = StrongConfig(jitter=0, grey=0, noise=0, blur=1, cutout=0)
    for side in (32, 64):
        strong(torch.rand(3, side, 2 * side), key=(0, 0, 0, "s"), config=config)
    assert sigmas[1] == pytest.approx(2 * sigmas[0])
