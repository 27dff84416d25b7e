"""Folders of pairs: every kind of picture that must be read, and every fault that must be named."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib.data.dataset import SegmentationDataset
from lib.data.errors import DataError
from lib.data.folder import FolderDataset
from lib.data.open import open_dataset
from lib.data.reading import to_bytes, turned

WIDTH, HEIGHT = 24, 16


def half_mask(value=255, dtype=np.uint8, shape=(HEIGHT, WIDTH)):
    """Foreground: the left third, so that rotations and mirrors show."""
    mask = np.zeros(shape, dtype)
    mask[:, : shape[1] // 3] = value
    return mask


EXPECTED = torch.from_numpy(half_mask(1)).long()


def picture(seed=0, shape=(HEIGHT, WIDTH, 3)):
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.fixture
def pairs(tmp_path):
    """Three good pairs, 1, 2 and 10."""
    for name in ("1", "2", "10"):
        save(tmp_path / "images" / f"{name}.png", picture(int(name)))
        save(tmp_path / "masks" / f"{name}.png", half_mask())
    return tmp_path


def test_sample_shapes_ranges_and_numeric_order(pairs):
    dataset = FolderDataset(pairs)
    assert dataset.names == ["1", "2", "10"]
    sample = dataset[2]
    assert sample.name == "10"
    assert sample.index == 2
    assert sample.image.shape == (3, HEIGHT, WIDTH)
    assert sample.image.dtype == torch.float32
    expected = torch.from_numpy(picture(10)).permute(2, 0, 1) / 255
    assert torch.equal(sample.image, expected)
    assert sample.mask.dtype == torch.int64
    assert torch.equal(sample.mask, EXPECTED)
    small = FolderDataset(pairs, size=8)[0]
    assert small.image.shape == (3, 8, 8)
    assert small.mask.shape == (8, 8)
    assert set(small.mask.unique().tolist()) == {0, 1}


def test_image_reads_no_mask_and_fingerprint_follows_the_data(pairs):
    dataset = FolderDataset(pairs)
    before = dataset.fingerprint()
    assert before == FolderDataset(pairs, size=8).fingerprint()
    (pairs / "masks" / "1.png").unlink()
    assert dataset.image(0).shape == (3, HEIGHT, WIDTH)
    with pytest.raises(DataError, match=r"masks/1\.png"):
        dataset.mask(0)
    save(pairs / "masks" / "1.png", half_mask(255, shape=(2 * HEIGHT, 2 * WIDTH)))
    assert FolderDataset(pairs).fingerprint() != before


def test_names_with_blanks_brackets_endings_and_foreign_files(tmp_path):
    for name in ("benign (1)", "a [b]", "x.y"):
        save(tmp_path / "images" / "sub" / f"{name}.jpg", picture())
    for name in ("benign (1)_mask", "a [b]_segmentation", "x.y_manual1"):
        save(tmp_path / "masks" / "sub" / f"{name}.png", half_mask())
    for foreign in ("images/Thumbs.db", "images/sub/notes.txt", "masks/._x.png", "readme.md"):
        (tmp_path / foreign).write_text("not a picture")
    dataset = FolderDataset(tmp_path)
    assert dataset.names == ["sub/a [b]", "sub/benign (1)", "sub/x.y"]
    assert any("foreign files ignored: 1 .txt" in note for note in dataset.notes)


def test_an_equal_name_wins_over_a_name_with_an_ending(tmp_path):
    for name in ("lung", "lung_mask"):
        save(tmp_path / "images" / f"{name}.png", picture())
    save(tmp_path / "masks" / "lung.png", half_mask())
    save(tmp_path / "masks" / "lung_mask.png", half_mask() * 0)
    dataset = FolderDataset(tmp_path)
    assert [int(dataset[i].mask.sum()) for i in range(2)] == [int(EXPECTED.sum()), 0]


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


def bands(values):
    """A label map of vertical bands of the given values."""
    return np.repeat(np.array(values), WIDTH // len(values))[None].repeat(HEIGHT, 0)


@pytest.mark.parametrize(
    ("values", "classes", "expected"),
    [
        ((0, 1, 2, 3), None, (0, 1, 2, 3)),
        ((0, 1, 3, 3), None, (0, 1, 3, 3)),  # class 2 is absent, 3 keeps its number
        ((0, 85, 170, 255), None, (0, 1, 2, 3)),
        ((170, 255, 85, 85), None, (2, 3, 1, 1)),  # 0 stays the background though it is absent
        ((0, 1, 2, 3), 6, (0, 1, 2, 3)),
        ((0, 1, 2, 3), 2, (0, 1, 1, 1)),
        ((0, 100, 150, 255), 2, (0, 0, 1, 1)),
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


def test_every_fault_is_named_in_one_error(pairs):
    images, masks = pairs / "images", pairs / "masks"
    whole = save(images / "cut.jpg", picture(shape=(200, 200, 3))).read_bytes()
    (images / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    whole = save(images / "cut.png", picture(shape=(200, 200, 3))).read_bytes()
    (images / "cutpng.png").write_bytes(whole[:-40])
    (images / "cut.png").unlink()
    cut_tif = save(images / "cuttif.tif", picture(shape=(200, 200, 3)))
    cut_tif.write_bytes(cut_tif.read_bytes()[:5000])
    for name in ("cut", "cutpng", "cuttif", "zero", "pointer", "stack", "twice"):
        save(masks / f"{name}.png", half_mask(shape=(20, 20)))
    (images / "zero.png").write_bytes(b"")
    (images / "pointer.png").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
    )
    pages = [Image.fromarray(picture(seed, (20, 20, 3))) for seed in (1, 2)]
    pages[0].save(images / "stack.tif", save_all=True, append_images=pages[1:])
    save(images / "twice.png", picture(shape=(20, 20, 3)))
    save(masks / "twice_mask.png", half_mask(shape=(20, 20)))
    save(images / "alone.png", picture())
    save(masks / "widow.png", half_mask())
    save(images / "1.bmp", picture())
    with pytest.raises(DataError) as caught:
        FolderDataset(pairs)
    message = str(caught.value)
    expected = "cut.jpg cutpng.png cuttif.tif zero.png pointer.png stack.tif twice.png"
    for name in [
        *expected.split(),
        "twice_mask.png",
        "alone.png",
        "widow.png",
        "1.bmp",
    ]:
        assert name in message, name
    assert message.startswith("12 files")
    assert len(caught.value.files) == 12
    for remedy in ("git lfs pull", "download them again", "keep one", "add the mask", "each page"):
        assert remedy in message


def test_a_long_list_is_cut_but_counted(tmp_path):
    save(tmp_path / "masks" / "x.png", half_mask())
    for number in range(120):
        save(tmp_path / "images" / f"{number}.png", picture())
    with pytest.raises(DataError, match=r"121 files .*\n.*\(120\)") as caught:
        FolderDataset(tmp_path)
    assert "and 70 more" in str(caught.value)
    assert len(caught.value.files) == 121


def test_damage_in_the_middle_is_found_when_masks_are_counted(pairs):
    path = save(pairs / "masks" / "2.gif", picture(5, (200, 300)))
    (pairs / "masks" / "2.png").unlink()
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"2\.gif"):
        FolderDataset(pairs)


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


def write_index(root, text):
    (root / "index.csv").write_text(text)


def test_index_gives_splits_patients_and_domains(pairs):
    write_index(pairs, "Stem,split,patient,site\n1.png,training,p1,A\n2,valid,p1,B\n10,test,p2,B\n")
    dataset = FolderDataset(pairs)
    assert dataset.splits == ["train", "val", "test"]
    assert dataset.groups == ["p1", "p1", "p2"]
    assert dataset.domains == ["A", "B", "B"]


def test_group_column_is_domain_when_few_and_group_when_many(tmp_path):
    names = [f"{number:02d}" for number in range(24)]
    for name in names:
        save(tmp_path / "images" / f"{name}.png", picture())
        save(tmp_path / "masks" / f"{name}.png", half_mask())
    few = "\n".join(f"{name},{'AB'[i % 2]}" for i, name in enumerate(names))
    write_index(tmp_path, f"stem,group\n{few}\n")
    dataset = FolderDataset(tmp_path)
    assert dataset.groups == dataset.names
    assert set(dataset.domains) == {"A", "B"}
    assert any("too few to split by" in note for note in dataset.notes)
    many = "\n".join(f"{name},p{i // 2}" for i, name in enumerate(names))
    write_index(tmp_path, f"stem,group\n{many}\n")
    dataset = FolderDataset(tmp_path)
    assert dataset.groups[:4] == ["p0", "p0", "p1", "p1"]
    assert set(dataset.domains) == {""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stem,split\n1,train\n", "does not list 2 of the images"),
        ("stem,split\n1,train\n2,train\n10,fold3\n", "fold3"),
        ("stem,split\n1,train\n1,test\n2,val\n10,val\n", "more than once"),
        ("size,split\n1,train\n", "no column that names the images"),
        ("", "no table"),
    ],
)
def test_a_wrong_index_is_refused(pairs, text, message):
    write_index(pairs, text)
    with pytest.raises(DataError, match=message):
        FolderDataset(pairs)


def test_folders_named_train_and_test_are_splits(tmp_path):
    for part in ("train", "test"):
        save(tmp_path / part / "images" / "1.png", picture())
        save(tmp_path / part / "masks" / "1.png", half_mask())
    dataset = FolderDataset(tmp_path)
    assert dataset.names == ["test/1", "train/1"]
    assert dataset.splits == ["test", "train"]


def test_task_names_the_folder_of_masks(pairs):
    for name in ("1", "2", "10"):
        save(pairs / "labels" / f"{name}.png", bands((0, 1, 2, 3)).astype(np.uint8))
    assert FolderDataset(pairs).classes == 2
    assert FolderDataset(pairs, task="labels").classes == 4
    with pytest.raises(DataError, match="no folder 'lesions'"):
        FolderDataset(pairs, task="lesions")


def test_wrong_roots_and_names(tmp_path, pairs):
    with pytest.raises(DataError, match="is no folder"):
        FolderDataset(tmp_path / "nowhere")
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack it"):
        FolderDataset(tmp_path / "set.zip")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"(?s)Looked for:.*dsb2018.*pairs.*nothing"):
        FolderDataset(tmp_path / "other")
    for folder in ("images", "masks"):
        (tmp_path / "other" / folder).mkdir()
        (tmp_path / "other" / folder / "a.dcm").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds no pictures, only \['\.dcm'\]"):
        FolderDataset(tmp_path / "other")
    with pytest.raises(DataError, match="Unknown layout"):
        FolderDataset(pairs, layout="kvazir")


def test_open_dataset_by_name(pairs):
    assert len(open_dataset("folder", root=pairs, size=8)) == 3
    assert open_dataset("pairs", root=pairs)[0].image.shape == (3, 256, 256)
    drawn = open_dataset("synthetic", count=2, size=32, modality="xray", cache=pairs / "cache")
    assert drawn[1].image.shape == (3, 32, 32)
    with pytest.raises(DataError, match="reads no folder"):
        open_dataset("synthetic", root=pairs)
    with pytest.raises(DataError, match="needs root"):
        open_dataset("kvasir")
    with pytest.raises(DataError, match="Unknown data set"):
        open_dataset("imagenet", root=pairs)
    with pytest.raises(DataError, match="not the layout 'busi'"):
        open_dataset("busi", root=pairs)


class Counting(SegmentationDataset):
    """Counts how often a picture is decoded."""

    def __init__(self, **facts):
        super().__init__(names=["a", "b"], **facts)
        self.read = 0

    def _load_image(self, index):
        self.read += 1
        return picture(index)

    def _load_mask(self, index):
        return half_mask(1)


def test_decoded_pictures_are_kept_up_to_the_limit():
    dataset = Counting()
    for _ in range(3):
        dataset.image(0)
    assert dataset.read == 1
    dataset.memory_limit = 0
    for _ in range(2):
        dataset.image(1)
    assert dataset.read == 3


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="unique"):
        SegmentationDataset(names=["a", "a"])
    with pytest.raises(DataError, match="groups has 1 entries for 2 names"):
        Counting(groups=["x"])
    with pytest.raises(DataError, match="classes"):
        Counting(classes=1)
    with pytest.raises(DataError, match=r"no image of these 1 names:\n  - z"):
        Counting().indices(["a", "z"])
    with pytest.raises(IndexError):
        Counting()[2]
