"""Folders of pairs: how they are matched and read, and every fault that must be named."""

import numpy as np
import pytest
import torch
from pictures import EXPECTED, HEIGHT, WIDTH, bands, half_mask, picture, save, save_pairs
from PIL import Image

from lib.data.dataset import SegmentationDataset
from lib.data.errors import DataError
from lib.data.folder import FolderDataset
from lib.data.open import open_dataset


@pytest.fixture
def pairs(tmp_path):
    return save_pairs(tmp_path)


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
    for name in ("benign (1)", "a [b]", "x.y", "train_1"):
        save(tmp_path / "images" / "sub" / f"{name}.jpg", picture())
    for name in ("benign (1)_mask", "a [b]_segmentation", "x.y_manual1", "train_1_anno"):
        save(tmp_path / "masks" / "sub" / f"{name}.png", half_mask())
    for foreign in ("images/Thumbs.db", "images/sub/notes.txt", "masks/._x.png", "readme.md"):
        (tmp_path / foreign).write_text("not a picture")
    dataset = FolderDataset(tmp_path)
    assert dataset.names == ["sub/a [b]", "sub/benign (1)", "sub/train_1", "sub/x.y"]
    assert any("foreign files ignored: 1 .txt" in note for note in dataset.notes)


def test_an_equal_name_wins_over_a_name_with_an_ending(tmp_path):
    for name in ("lung", "lung_mask"):
        save(tmp_path / "images" / f"{name}.png", picture())
    save(tmp_path / "masks" / "lung.png", half_mask())
    save(tmp_path / "masks" / "lung_mask.png", half_mask() * 0)
    dataset = FolderDataset(tmp_path)
    assert [int(dataset[i].mask.sum()) for i in range(2)] == [int(EXPECTED.sum()), 0]


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
    labels = FolderDataset(pairs, task="labels")
    assert labels.classes == 4
    assert labels.title == f"{pairs.name} (labels)"
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
    with pytest.raises(DataError, match="one kind of masks"):
        open_dataset("synthetic/infection")
    with pytest.raises(DataError, match="needs root"):
        open_dataset("kvasir")
    with pytest.raises(DataError, match="Unknown data set"):
        open_dataset("imagenet", root=pairs)
    with pytest.raises(DataError, match="not the layout 'busi'"):
        open_dataset("busi", root=pairs)


def test_one_word_names_the_folder_and_its_masks(tmp_path):
    """As a notebook's parameter has it: no second one for the task or for the classes."""
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    for folder in ("images", "masks", "labels"):
        (tmp_path / folder).mkdir()
    for name, values in {"masks": [0, 1, 2], "labels": [0, 1, 1]}.items():
        mask = np.resize(np.array(values, np.uint8), (8, 8))
        Image.fromarray(mask).save(tmp_path / name / "a.png")
    picture.save(tmp_path / "images" / "a.png")
    assert open_dataset("folder", root=tmp_path).classes == 3
    assert "in a notebook: dataset 'folder/NAME'" in open_dataset("folder", root=tmp_path).notes[-1]
    any_structure = open_dataset("folder/any", root=tmp_path, size=None)
    assert any_structure.classes == 2
    assert any_structure.mask(0).flatten()[:6].tolist() == [0, 1, 1, 0, 1, 1]
    assert open_dataset("folder/labels", root=tmp_path).classes == 2
    with pytest.raises(DataError, match="no folder 'lung' of masks"):
        open_dataset("folder/lung", root=tmp_path)


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
