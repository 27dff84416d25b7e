"""Folders as people keep them: what opens, what is refused, and what a note says."""

import shutil

import numpy as np
import pytest
from pictures import EXPECTED, bands, half_mask, picture, save, save_pairs
from PIL import Image

from lib.data.errors import DataError
from lib.data.folder import FolderDataset
from lib.data.pair_folder import split_of
from lib.data.splits import make_split


def pair(root, name, value=255, images="images", masks="masks", ending=""):
    save(root / images / f"{name}.png", picture(len(name)))
    save(root / masks / f"{name}{ending}.png", half_mask(value))


def noted(dataset, text):
    return any(text in note for note in dataset.notes)


def test_vessels_drawn_by_hand_win_over_the_field_of_view(tmp_path):
    for name in ("01_dr", "02_dr"):
        pair(tmp_path, name, masks="manual1")
        save(tmp_path / "mask" / f"{name}_mask.png", half_mask(255) * 0 + 255)
    dataset = FolderDataset(tmp_path)
    assert np.array_equal(dataset.mask(0), EXPECTED)
    assert noted(dataset, "masks taken from manual1; also there: mask")


def test_one_part_of_drive_as_the_root(tmp_path):
    save(tmp_path / "images" / "21_training.png", picture())
    save(tmp_path / "1st_manual" / "21_manual1.png", half_mask())
    save(tmp_path / "mask" / "21_training_mask.png", half_mask() * 0 + 255)
    assert np.array_equal(FolderDataset(tmp_path).mask(0), EXPECTED)


def test_fields_of_view_alone_are_refused(tmp_path):
    pair(tmp_path, "01_test", masks="mask", ending="_mask")
    with pytest.raises(DataError, match="fields of view"):
        FolderDataset(tmp_path)


def test_original_and_ground_truth(tmp_path):
    pair(tmp_path, "1", images="Original", masks="Ground Truth")
    assert np.array_equal(FolderDataset(tmp_path).mask(0), EXPECTED)


def test_one_folder_a_case_is_no_set_of_nuclei(tmp_path):
    for case in ("case1", "case2"):
        save(tmp_path / case / "images" / f"{case}.png", picture())
        save(tmp_path / case / "masks" / f"{case}.png", bands((0, 1, 2, 3)).astype(np.uint8))
    dataset = FolderDataset(tmp_path)
    assert dataset.layout == "pairs"
    assert dataset.names == ["case1/case1", "case2/case2"]
    assert dataset.classes == 4


def test_a_single_case_does_not_open_its_neighbours(tmp_path):
    for case in ("case1", "case2"):
        pair(tmp_path / case, case)
    assert FolderDataset(tmp_path / "case1").names == ["case1"]


def test_all_pairs_below_the_root_are_read(tmp_path):
    pair(tmp_path / "TrainDataset", "1", images="image")
    pair(tmp_path / "TestDataset" / "Kvasir", "1")
    pair(tmp_path / "TestDataset" / "Colon DB", "1")
    dataset = FolderDataset(tmp_path)
    found = dict(zip(dataset.names, dataset.splits, strict=True))
    assert found == {
        "TestDataset/Colon DB/1": "test", "TestDataset/Kvasir/1": "test", "TrainDataset/1": "train"
    }  # fmt: skip


def test_words_that_begin_like_a_split_are_none(tmp_path):
    """They state no split: a valve is not for validation, a testis not for testing."""
    for organ in ("valve", "testis", "trainee", "VALVE2", "aorta"):
        pair(tmp_path, f"{organ}/1")
    assert FolderDataset(tmp_path).splits == [""] * 5


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("trainset", "train"), ("TESTING", "test"), ("ValidationSet", "val"), ("test data", "test"),
        ("val_images", "val"), ("TrainKvasir", "train"), ("valA", "val"), ("TESTDataset", "test"),
    ],
)  # fmt: skip
def test_folders_that_state_a_split(folder, split):
    assert split_of(["images", folder]) == split


def test_an_index_in_the_root_counts_for_pairs_that_lie_deeper(tmp_path):
    for name in ("a", "b"):
        pair(tmp_path / "data", name)
    (tmp_path / "index.csv").write_text("stem,patient\na,p1\nb,p1\n")
    assert FolderDataset(tmp_path).groups == ["p1", "p1"]
    pair(tmp_path / "data" / "train", "c")
    pair(tmp_path / "data" / "test", "c")
    rows = ["stem,patient", "data/a,p1", "data/b,p1", "data/train/c,p2", "data/test/c,p3"]
    (tmp_path / "index.csv").write_text("\n".join(rows))
    assert FolderDataset(tmp_path).groups == ["p1", "p1", "p3", "p2"]
    for part in ("train", "test"):
        shutil.rmtree(tmp_path / "data" / part)
    (tmp_path / "data" / "index.csv").write_text("stem,patient\na,p1\nb,p2\n")
    dataset = FolderDataset(tmp_path)
    assert dataset.groups == ["p1", "p2"]
    assert noted(dataset, f"not read: {tmp_path / 'index.csv'}")


def test_an_index_above_the_root_is_somebody_else_s(tmp_path):
    pair(tmp_path / "root", "a")
    (tmp_path / "index.csv").write_text("stem,patient\nb,p1\n")
    dataset = FolderDataset(tmp_path / "root")
    assert dataset.groups == ["a"]
    assert not noted(dataset, "index.csv")


def test_structures_of_one_name_in_each_case_are_no_nuclei(tmp_path):
    for case in ("p01", "p02"):
        save(tmp_path / case / "images" / f"{case}.png", picture())
        for organ in ("liver", "tumor"):
            save(tmp_path / case / "masks" / f"{organ}.png", half_mask())
    with pytest.raises(DataError, match=r"(?s)liver\.png.*tumor\.png"):
        FolderDataset(tmp_path)
    for path in sorted(tmp_path.glob("*/masks/*.png")):
        path.rename(path.with_name(f"{'1' if path.stem == 'liver' else '2'}.png"))
    assert FolderDataset(tmp_path).layout == "dsb2018"  # numbered ones are instances


def test_photographs_in_place_of_masks_are_named_before_they_fill_the_memory(tmp_path):
    colourful = picture(0, (80, 80, 3))
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", colourful)
        save(tmp_path / "masks" / f"{name}.png", colourful)
    with pytest.raises(DataError, match=r"Pictures where masks should be.*classes=2") as caught:
        FolderDataset(tmp_path)
    assert len(caught.value.files) == 2
    assert FolderDataset(tmp_path, classes=2).mask(0).any()


def test_a_part_beside_the_pairs_of_the_root(tmp_path):
    pair(tmp_path, "1")
    pair(tmp_path / "test", "2")
    pair(tmp_path / "_old", "3")
    dataset = FolderDataset(tmp_path)
    assert dict(zip(dataset.names, dataset.splits, strict=True)) == {"1": "", "test/2": "test"}


def test_a_second_data_set_beside_the_first_is_named(tmp_path):
    for lung in ("leftMask", "rightMask"):
        save(tmp_path / "MontgomerySet" / "ManualMask" / lung / "a.png", half_mask())
    save(tmp_path / "MontgomerySet" / "CXR_png" / "a.png", picture())
    save(tmp_path / "China" / "CXR_png" / "CHNCXR_0001_0.png", picture())
    save(tmp_path / "China" / "mask" / "CHNCXR_0001_0_mask.png", half_mask())
    dataset = FolderDataset(tmp_path)
    assert len(dataset) == 1
    assert noted(dataset, "not read")
    assert noted(dataset, "shenzhen")


def test_folders_that_may_be_patients_are_mentioned(tmp_path):
    for patient in ("a", "b"):
        for image in ("1", "2"):
            pair(tmp_path, f"{patient}/{image}")
    assert noted(FolderDataset(tmp_path), "2 folders; if each is a patient")


def test_linked_folders_are_entered_once(tmp_path):
    pair(tmp_path / "elsewhere", "1")
    for kind in ("images", "masks"):
        (tmp_path / "root" / kind).mkdir(parents=True)
        (tmp_path / "root" / kind / "s").symlink_to(tmp_path / "elsewhere" / kind)
        (tmp_path / "root" / kind / "loop").symlink_to(tmp_path / "root" / kind)
        (tmp_path / "root" / kind / "again").symlink_to(tmp_path / "root" / kind / "t")
    pair(tmp_path / "root", "t/2")
    assert FolderDataset(tmp_path / "root").names == ["s/1", "t/2"]


def test_names_that_differ_in_case_alone_are_two_folders(tmp_path):
    for case in ("A", "a"):
        pair(tmp_path / case, "1")
    assert sorted(FolderDataset(tmp_path).names) == ["A/1", "a/1"]


@pytest.mark.parametrize("reduce", ["adaptive", "gif"])
def test_palettes_that_do_not_begin_with_black_are_read_by_colour(tmp_path, reduce):
    """Software that reduces colours puts the foreground first here."""
    red = np.zeros((*half_mask().shape, 3), np.uint8)
    red[:, : red.shape[1] // 3] = (250, 10, 10)
    save(tmp_path / "images" / "a.png", picture())
    image = Image.fromarray(red)
    if reduce == "gif":
        save(tmp_path / "masks" / "a.gif", image)
    else:
        save(tmp_path / "masks" / "a.png", image.quantize(4))
    assert np.array_equal(FolderDataset(tmp_path).mask(0), EXPECTED)


@pytest.mark.parametrize("values", [(0, 0, 254, 255), (0, 1, 254, 255), (0, 2, 250, 255)])
def test_rounding_at_white_is_no_class(tmp_path, values):
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.png", bands(values).astype(np.uint8))
    dataset = FolderDataset(tmp_path)
    assert dataset.classes == 2
    assert np.array_equal(dataset.mask(0), bands((0, 0, 1, 1)))


def test_many_instances_are_one_foreground_with_two_classes(tmp_path):
    save(tmp_path / "images" / "a.png", picture())
    numbers = np.arange(half_mask().size, dtype=np.uint8).reshape(half_mask().shape) % 61
    save(tmp_path / "masks" / "a.png", numbers)
    with pytest.raises(DataError, match="classes=2"):
        FolderDataset(tmp_path)
    assert np.array_equal(FolderDataset(tmp_path, classes=2).mask(0), numbers > 0)


def test_masks_without_any_foreground_are_mentioned(tmp_path):
    save(tmp_path / "images" / "a.png", picture())
    save(tmp_path / "masks" / "a.jpg", half_mask(1), quality=95)
    assert noted(FolderDataset(tmp_path), "no mask holds any foreground")


def test_images_turned_without_their_masks_are_counted(tmp_path):
    save_pairs(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: the shape cannot tell
    save(tmp_path / "images" / "1.png", picture(1), exif=exif)
    assert noted(FolderDataset(tmp_path), "should be: 1 of 3 images")


def test_a_mask_that_fits_the_turned_image_alone_needs_no_warning(tmp_path):
    save_pairs(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    upright = picture(1)
    save(tmp_path / "images" / "1.jpg", np.rot90(upright, 1), exif=exif)
    (tmp_path / "images" / "1.png").unlink()
    assert not noted(FolderDataset(tmp_path), "turned by EXIF")


def write_index(root, text):
    (root / "index.csv").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("column", ["Patient ID", "PatientID", "patient_id", "Subject-ID"])
def test_columns_in_any_spelling(tmp_path, column):
    save_pairs(tmp_path)
    write_index(tmp_path, f"stem,{column},age\n1, p0,3\n2,p0,4\n10,p1,5\n")
    dataset = FolderDataset(tmp_path)
    assert dataset.groups == ["p0", "p0", "p1"]
    assert noted(dataset, "not used: age")


def test_a_column_set_is_the_split_where_it_holds_nothing_else(tmp_path):
    save_pairs(tmp_path)
    write_index(tmp_path, "stem,set\n1,Train\n2,test\n10,\n")
    assert FolderDataset(tmp_path).splits == ["train", "test", ""]
    write_index(tmp_path, "stem,set\n1,A\n2,B\n10,A\n")
    assert FolderDataset(tmp_path).splits == ["", "", ""]


@pytest.mark.parametrize("name", ["images/{}.png", "images\\{}.png", "/data/x/{}.png", " {} "])
def test_names_with_folders_of_another_place(tmp_path, name):
    save_pairs(tmp_path)
    rows = "\n".join(f"{name.format(n)},test," for n in ("1", "2", "10"))
    write_index(tmp_path, f"file,split\n{rows}\n")
    assert FolderDataset(tmp_path).splits == ["test"] * 3


def test_one_row_for_two_images_is_refused(tmp_path):
    for part in ("train", "test"):
        pair(tmp_path / part, "1")
    write_index(tmp_path, "stem,split\n1,train\n")
    with pytest.raises(DataError, match="one row for several images"):
        FolderDataset(tmp_path)
    write_index(tmp_path, "stem,split\ntrain/1,val\ntest/1,\n")
    dataset = FolderDataset(tmp_path)  # an empty cell leaves what the folder says
    assert dict(zip(dataset.names, dataset.splits, strict=True)) == {
        "test/1": "test", "train/1": "val"
    }  # fmt: skip


def test_rows_with_more_cells_than_columns_are_refused(tmp_path):
    save_pairs(tmp_path)
    write_index(tmp_path, "stem,split\n1,train\n2,train,x\n10,test\n")
    with pytest.raises(DataError, match="more cells than the first line"):
        FolderDataset(tmp_path)


def test_two_columns_of_one_name_are_refused(tmp_path):
    save_pairs(tmp_path)
    write_index(tmp_path, "stem,Patient,patient\n1,a,b\n2,a,b\n10,a,b\n")
    with pytest.raises(DataError, match="several columns called patient"):
        FolderDataset(tmp_path)


def test_the_index_of_a_known_layout_is_read(tmp_path):
    for number in ("0000001", "0000002"):
        pair(tmp_path, f"ISIC_{number}", ending="_segmentation")
    write_index(tmp_path, "stem,patient\nISIC_0000001,a\nISIC_0000002,a\n")
    dataset = FolderDataset(tmp_path)
    assert dataset.layout == "isic"
    assert dataset.groups == ["a", "a"]


def test_isic_in_folders_of_pairs_keeps_its_splits(tmp_path):
    for part, number in (("train", "0000001"), ("test", "0000002")):
        pair(tmp_path / part, f"ISIC_{number}", ending="_segmentation")
    assert FolderDataset(tmp_path).splits == ["train", "test"]


def test_a_patient_named_in_part_joins_the_part_that_names_it(tmp_path):
    for k in range(12):
        pair(tmp_path, str(k))
    rows = "\n".join(f"{k},p{k // 2},{'test' if k in (0, 4) else ''}" for k in range(12))
    write_index(tmp_path, f"stem,patient,split\n{rows}\n")
    split = make_split(FolderDataset(tmp_path), near_duplicates=False)
    assert sorted(split.test) == ["0", "1", "4", "5"]
