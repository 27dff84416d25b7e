"""Pictures of every mode, masks of every kind: what is read is what was drawn."""

import numpy as np
import pytest
import torch
from pictures import EXPECTED, HEIGHT, WIDTH, bands, half_mask, picture, save, save_pairs
from PIL import Image

from lib.data.errors import DataError
from lib.data.folder import FolderDataset
from lib.data.reading import to_bytes, turned


@pytest.fixture
def pairs(tmp_path):
    return save_pairs(tmp_path)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"),
        ("L", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("P", "gif"),
        ("RGB", "bmp"),
        ("RGBA", "png"),
        ("RGBA", "webp"),
        ("CMYK", "jpg"),
        ("CMYK", "tif"),
        ("YCbCr", "jpg"),
        ("I;16", "png"),
        ("I;16", "tif"),
        ("F", "tif"),
    ],
)
def test_images_of_every_mode(pairs, mode, suffix):
    """A picture that is dark on the left and bright on the right stays so in every mode."""
    grey = 200 - half_mask(160)
    (pairs / "images" / "1.png").unlink()
    path = pairs / "images" / f"1.{suffix}"
    if mode == "I;16":
        save(path, grey.astype(np.uint16) * 200)
    elif mode == "F":
        save(path, grey.astype(np.float32) / 1000 - 3)
    else:
        options = {"lossless": True} if suffix == "webp" else {}
        save(path, Image.fromarray(grey).convert("RGB").convert(mode), **options)
    image = FolderDataset(pairs).image(0)
    assert image.shape == (3, HEIGHT, WIDTH)
    left, right = image[..., : WIDTH // 3 - 1].mean(), image[..., WIDTH // 3 + 1 :].mean()
    assert right - left > 0.5
    if mode not in ("1", "I;16", "F"):  # those are black and white, or stretched
        assert abs(left.item() - 40 / 255) < 0.03
        assert abs(right.item() - 200 / 255) < 0.03


def test_deep_pictures_are_stretched_unless_they_hold_eight_bits():
    ramp = np.arange(1001, dtype=np.uint16)[None] * 40
    out = to_bytes(ramp)
    assert out.dtype == np.uint8
    assert out[0, 0] == 0
    assert out[0, -1] == 255
    assert abs(int(out[0, 500]) - 127) <= 1
    assert np.array_equal(to_bytes(np.array([[3, 200]], np.uint16)), [[3, 200]])
    spot = np.zeros((100, 100), np.uint16)
    spot[5, 5] = 4000
    assert to_bytes(spot)[5, 5] == 255
    assert not to_bytes(np.full((4, 4), np.nan, np.float32)).any()


@pytest.mark.parametrize(
    ("pixels", "mode", "suffix"),
    [
        (half_mask(), "1", "png"),
        (half_mask(1), None, "png"),
        (half_mask(100), None, "png"),
        (half_mask(), "RGB", "png"),
        (half_mask(), "RGBA", "png"),
        (half_mask(), "P", "gif"),
        (half_mask(), "CMYK", "tif"),
        (half_mask(65535, np.uint16), None, "png"),
        (half_mask(1, np.uint16), None, "tif"),
        (half_mask(), None, "jpg"),
        (half_mask(), "RGB", "jpg"),
        (np.stack([half_mask(v) for v in (200, 0, 40)], -1), None, "png"),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_binary_masks_of_every_kind(tmp_path, pixels, mode, suffix):
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / f"a.{suffix}", pixels, mode)
    dataset = FolderDataset(tmp_path)
    assert dataset.classes == 2
    assert torch.equal(dataset[0].mask, EXPECTED)


def test_jpeg_masks_are_cut_at_half_not_above_zero(tmp_path):
    disc = np.hypot(*np.mgrid[-32:32, -32:32]) < 20
    save(tmp_path / "images" / "a.png", picture(shape=(64, 64, 3)))
    path = save(tmp_path / "masks" / "a.jpg", (disc * 255).astype(np.uint8), quality=60)
    stored = np.asarray(Image.open(path))
    assert (stored > 0).sum() > 1.1 * disc.sum()  # the trap is really there
    mask = FolderDataset(tmp_path)[0].mask.numpy()
    assert np.array_equal(mask, stored >= 128)
    assert abs(int(mask.sum()) - int(disc.sum())) < 0.02 * disc.sum()


def test_masks_of_zero_and_one_beside_masks_of_zero_and_255_and_empty_ones(pairs):
    save(pairs / "masks" / "1.png", half_mask(1))
    save(pairs / "masks" / "2.png", half_mask(0))
    dataset = FolderDataset(pairs)
    assert [int(dataset[i].mask.sum()) for i in range(3)] == [
        int(EXPECTED.sum()),
        0,
        int(EXPECTED.sum()),
    ]


def test_masks_blurred_by_resizing_are_binary(pairs):
    disc = np.hypot(*np.mgrid[-20:20, -30:30]) < 15
    blurred = Image.fromarray(disc.astype(np.uint8) * 255).resize((96, 64), 2)
    assert len(np.unique(np.asarray(blurred))) > 5
    for name in ("1", "2", "10"):
        save(pairs / "masks" / f"{name}.png", blurred)
        save(pairs / "images" / f"{name}.png", picture(shape=(64, 96, 3)))
    dataset = FolderDataset(pairs)
    assert dataset.classes == 2
    assert "128" in dataset.notes[1]
    assert np.array_equal(dataset[0].mask, np.asarray(blurred) >= 128)


@pytest.mark.parametrize(
    ("values", "classes", "expected"),
    [
        ((0, 1, 2, 3), None, (0, 1, 2, 3)),
        ((0, 1, 3, 3), None, (0, 1, 3, 3)),  # class 2 is absent, 3 keeps its number
        ((0, 85, 170, 255), None, (0, 1, 2, 3)),
        ((170, 255, 85, 85), None, (2, 3, 1, 1)),  # 0 stays the background though it is absent
        ((0, 1, 2, 3), 6, (0, 1, 2, 3)),
        ((0, 1, 2, 3), 2, (0, 1, 1, 1)),
        ((0, 100, 150, 255), 2, (0, 1, 1, 1)),
        ((0, 1, 2, 255), 2, (0, 1, 1, 0)),  # 255 beside class numbers: no label
        ((0, 1, 2, 255), 4, (0, 1, 2, 3)),
    ],
)
def test_label_maps(tmp_path, values, classes, expected):
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.png", bands(values).astype(np.uint8))
    dataset = FolderDataset(tmp_path, classes=classes)
    assert dataset.classes == (classes or 4)
    assert np.array_equal(dataset[0].mask, bands(expected))


def test_label_maps_as_palette_and_as_colours(tmp_path):
    palette = Image.fromarray(bands((0, 1, 2, 2)).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 250, 0, 0, 0, 0, 250])
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[:, 6:12, 2] = 255  # blue: the lower code, so class 1
    colours[:, 12:, 0] = 255
    for folder, mask in (("p", palette), ("c", colours)):
        save(tmp_path / folder / "images" / "a.png", picture())
        save(tmp_path / folder / "masks" / "a.png", mask)
        dataset = FolderDataset(tmp_path / folder)
        assert dataset.classes == 3
        assert np.array_equal(dataset[0].mask, bands((0, 1, 2, 2)))
    assert "#0000FF -> 1" in dataset.notes[1]


def test_a_palette_is_read_alike_whichever_of_its_colours_a_file_holds(tmp_path):
    """VOC's palette has a grey: a file with that class alone is a label map all the same."""
    voc = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 128]
    for name, labels in {"a": (0, 1, 2, 3), "b": (0, 0, 3, 3)}.items():
        palette = Image.fromarray(bands(labels).astype(np.uint8)).convert("P")
        palette.putpalette(voc)
        save(tmp_path / "images" / f"{name}.png", picture())
        save(tmp_path / "masks" / f"{name}.png", palette)
    dataset = FolderDataset(tmp_path)
    assert dataset.classes == 4
    assert np.array_equal(dataset[1].mask, bands((0, 0, 3, 3)))


def test_black_and_white_are_themselves_in_a_palette_of_colours(tmp_path):
    """Paint's and Pillow's palettes have colours that a mask does not use; others are plain."""
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.png", half_mask())
    save(tmp_path / "images" / "b.png", picture(1))
    save(tmp_path / "masks" / "b.png", Image.fromarray(half_mask()).convert("RGB").convert("P"))
    dataset = FolderDataset(tmp_path)
    assert dataset.classes == 2
    assert torch.equal(dataset[1].mask, EXPECTED)


def test_transparent_parts_of_a_mask_are_background(tmp_path):
    rgba = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    rgba[..., 3] = half_mask()
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.png", rgba)
    assert torch.equal(FolderDataset(tmp_path)[0].mask, EXPECTED)


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_rotation_tags_turn_image_and_mask_alike(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    bright = half_mask(255)
    save(tmp_path / "images" / f"a.{suffix}", bright, exif=exif)
    save(tmp_path / "masks" / "a.png", bright, exif=exif)  # drawn on the raw pixels, tagged too
    sample = FolderDataset(tmp_path)[0]
    shape = (WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH)
    assert sample.image.shape == (3, *shape)
    assert sample.mask.shape == shape
    assert ((sample.image[0] > 0.5) == (sample.mask == 1)).float().mean() > 0.97
    if orientation >= 5:  # a mask of the raw pixels that lost its tag
        save(tmp_path / "masks" / "a.png", bright)
        assert torch.equal(FolderDataset(tmp_path)[0].mask, sample.mask)
        expected = torch.from_numpy(turned(half_mask(1), orientation)).long()
        assert torch.equal(sample.mask, expected)


def test_mask_of_another_size_is_resized_when_the_shape_fits(pairs):
    save(pairs / "masks" / "1.png", half_mask(255, shape=(HEIGHT * 3, WIDTH * 3)))
    assert torch.equal(FolderDataset(pairs)[0].mask, EXPECTED)
    save(pairs / "masks" / "2.png", half_mask(255, shape=(WIDTH, WIDTH)))
    save(pairs / "masks" / "10.png", half_mask(255, shape=(WIDTH, HEIGHT)))  # on its side, no tag
    with pytest.raises(DataError, match=r"24x24, image 24x16") as caught:
        FolderDataset(pairs)
    assert {path.name for path in caught.value.files} == {"2.png", "10.png"}


@pytest.mark.parametrize(
    ("pixels", "suffix", "message"),
    [
        (np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH), "png", "383 different"),
        (bands((0, 1, 2, 255)).astype(np.uint8), "png", "255 beside class numbers"),
        (bands((0, 80, 160, 255)).astype(np.uint8).repeat(9, 0).repeat(9, 1), "jpg", "are JPEG"),
    ],
)
def test_masks_whose_classes_cannot_be_told_are_refused(tmp_path, pixels, suffix, message):
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / f"a.{suffix}", pixels)
    with pytest.raises(DataError, match=message) as caught:
        FolderDataset(tmp_path)
    assert "classes=2" in str(caught.value)
    assert caught.value.files[0].name == f"a.{suffix}"
    assert FolderDataset(tmp_path, classes=2)[0].mask.max() == 1


def test_too_many_values_for_the_classes_asked(tmp_path):
    for name, values in (("a", (0, 1, 2, 2)), ("b", (0, 5, 9, 12))):
        save(tmp_path / "images" / f"{name}.png", picture())
        save(tmp_path / "masks" / f"{name}.png", bands(values).astype(np.uint8))
    with pytest.raises(DataError, match="3 classes were asked for") as caught:
        FolderDataset(tmp_path, classes=3)
    assert [path.name for path in caught.value.files] == ["b.png"]
