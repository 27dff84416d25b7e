"""The layouts of public data sets, rebuilt in miniature: recognised, paired, grouped, split."""

import h5py
import numpy as np
import pytest
from PIL import Image

from lib.data.errors import DataError
from lib.data.folder import FolderDataset

SHAPE = (12, 16)


def save(path, pixels=None, mode=None):
    """Save a picture; without pixels, one whose content follows from its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        seed = sum(path.name.encode())
        pixels = np.random.default_rng(seed).integers(0, 255, (*SHAPE, 3), np.uint8)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def mask(*columns, value=255):
    pixels = np.zeros(SHAPE, np.uint8)
    pixels[:, list(columns)] = value
    return pixels


def columns_of(dataset, index):
    """The columns of the picture that are foreground."""
    found = dataset[index].mask.numpy()
    assert (found == found[:1]).all()
    assert found.max() <= 1
    return np.flatnonzero(found[0]).tolist()


def test_kvasir(tmp_path):
    base = tmp_path / "Kvasir-SEG"
    for number, name in enumerate(("cju0a", "cju1b")):
        save(base / "images" / f"{name}.jpg")
        save(base / "masks" / f"{name}.jpg", mask(*range(8 * number, 8 * number + 8)), "RGB")
    (base / "kavsir_bboxes.json").write_text("{}")
    for root in (tmp_path, base):
        dataset = FolderDataset(root)
        assert dataset.layout == "kvasir"
        assert dataset.names == ["cju0a", "cju1b"]
        assert columns_of(dataset, 1) == list(range(8, 16))
        assert "polyps" in dataset.title
        assert any("1 .json" in note for note in dataset.notes)


def covid(root, kind, folders, full):
    """`kind` Segmentation Data, doubled as in the archive."""
    base = root / f"{kind} Segmentation Data" / f"{kind} Segmentation Data"
    for split in ("Train", "Val", "Test"):
        for group in ("COVID-19", "Normal"):
            for folder in folders:
                for number in (1, 2):
                    path = base / split / group / folder / f"{group.lower()}_{number}.png"
                    column = 3 if folder == "infection masks" else 5
                    save(path, None if folder == "images" else mask(column, value=full))


def test_covid_qu_ex(tmp_path):
    covid(tmp_path, "Lung", ("images", "lung masks"), full=1)
    dataset = FolderDataset(tmp_path)
    assert dataset.layout == "covid_qu_ex"
    assert len(dataset) == 12
    assert dataset.names[0] == "Test/COVID-19/covid-19_1"
    assert (dataset.splits[0], dataset.domains[0]) == ("test", "COVID-19")
    assert columns_of(dataset, 0) == [5]  # masks of 0 and 1
    with pytest.raises(DataError, match="has no 'infection masks'"):
        FolderDataset(tmp_path, task="infection")
    covid(tmp_path, "Infection", ("images", "lung masks", "infection masks"), full=255)
    assert columns_of(FolderDataset(tmp_path), 0) == [5]
    infection = FolderDataset(tmp_path, task="infection")
    assert columns_of(infection, 0) == [3]
    assert sorted(set(infection.splits)) == ["test", "train", "val"]
    inner = tmp_path / "Infection Segmentation Data" / "Infection Segmentation Data"
    assert columns_of(FolderDataset(inner), 0) == [3]
    assert columns_of(FolderDataset(inner, task="lung"), 0) == [5]  # they lie there too
    (inner / "Val" / "Normal" / "infection masks" / "normal_2.png").unlink()
    with pytest.raises(DataError, match=r"normal_2\.png"):
        FolderDataset(inner)
    with pytest.raises(DataError, match="no task 'heart'"):
        FolderDataset(tmp_path, task="heart")


def test_isic(tmp_path):
    data, truth = "ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"
    for number in (2, 10):
        save(tmp_path / data / f"ISIC_{number:07}.jpg")
        save(tmp_path / data / f"ISIC_{number:07}_superpixels.png")
        save(tmp_path / truth / f"ISIC_{number:07}_segmentation.png", mask(number))
        save(tmp_path / truth / f"ISIC_{number:07}_attribute_globules.png", mask(0))
    save(tmp_path / "ISIC-2017_Test_v2_Data" / "ISIC_0000011.jpg")
    save(tmp_path / "ISIC-2017_Test_v2_GT" / "ISIC_0000011_segmentation.png", mask(11))
    (tmp_path / data / "ISIC-2017_Training_Data_metadata.csv").write_text("image_id,age\n")
    dataset = FolderDataset(tmp_path)
    assert dataset.layout == "isic"
    assert dataset.names == ["ISIC_0000002", "ISIC_0000010", "ISIC_0000011"]
    assert [columns_of(dataset, i) for i in range(3)] == [[2], [10], [11]]
    assert dataset.splits == ["train", "train", "test"]
    assert any("5 .png" in note or "4 .png" in note for note in dataset.notes)
    (tmp_path / data / "ISIC_0000002.jpg").unlink()
    save(tmp_path / data / "ISIC_0000012.jpg")
    with pytest.raises(DataError) as caught:
        FolderDataset(tmp_path)
    names = {path.name for path in caught.value.files}
    assert names == {"ISIC_0000012.jpg", "ISIC_0000002_segmentation.png"}


def test_busi(tmp_path):
    base = tmp_path / "Dataset_BUSI_with_GT"
    for name in ("benign (2)", "benign (10)", "malignant (1)", "normal (1)", "normal (2)"):
        save(base / name.split()[0] / f"{name}.png")
    save(base / "benign" / "benign (2)_mask.png", mask(1))
    save(base / "benign" / "benign (10)_mask.png", mask(2), "1")
    save(base / "benign" / "benign (10)_mask_1.png", mask(9), "RGB")
    save(base / "malignant" / "malignant (1)_mask.png", mask(4), "RGBA")
    save(base / "normal" / "normal (1)_mask.png", mask())
    dataset = FolderDataset(tmp_path)
    assert dataset.layout == "busi"
    names = ["benign (2)", "benign (10)", "malignant (1)", "normal (1)", "normal (2)"]
    assert dataset.names == names
    assert [columns_of(dataset, i) for i in range(5)] == [[1], [2, 9], [4], [], []]
    assert dataset.domains == ["benign", "benign", "malignant", "normal", "normal"]
    (base / "malignant" / "malignant (1)_mask.png").unlink()
    with pytest.raises(DataError, match=r"Images without a mask.*\n.*malignant \(1\)\.png"):
        FolderDataset(tmp_path)


def test_montgomery(tmp_path):
    base = tmp_path / "MontgomerySet"
    for name in ("MCUCXR_0001_0", "MCUCXR_0100_1"):
        save(base / "CXR_png" / f"{name}.png")
        save(base / "ManualMask" / "leftMask" / f"{name}.png", mask(10, 11), "1")
        save(base / "ManualMask" / "rightMask" / f"{name}.png", mask(3), "1")
    (base / "CXR_png" / "Thumbs.db").write_bytes(b"x")
    dataset = FolderDataset(tmp_path)
    assert dataset.layout == "montgomery"
    assert columns_of(dataset, 0) == [3, 10, 11]
    assert set(dataset.domains) == {"Montgomery"}
    (base / "ManualMask" / "leftMask" / "MCUCXR_0100_1.png").unlink()
    with pytest.raises(DataError, match=r"MCUCXR_0100_1\.png: only rightMask"):
        FolderDataset(tmp_path)


def test_shenzhen(tmp_path):
    base = tmp_path / "ChinaSet_AllFiles"
    for number in (1, 2, 3):
        save(base / "CXR_png" / f"CHNCXR_{number:04}_0.png")
    for number in (1, 3):
        save(base / "mask" / f"CHNCXR_{number:04}_0_mask.png", mask(number))
    dataset = FolderDataset(tmp_path)
    assert dataset.layout == "shenzhen"
    assert dataset.names == ["CHNCXR_0001_0", "CHNCXR_0003_0"]
    assert columns_of(dataset, 1) == [3]
    assert any("1 of 3 X-rays have no mask" in note for note in dataset.notes)
    save(base / "mask" / "CHNCXR_0009_0_mask.png", mask(1))
    with pytest.raises(DataError, match="Masks without an image"):
        FolderDataset(tmp_path)


def test_drive(tmp_path):
    base = tmp_path / "DRIVE"
    for part, number in (("training", 21), ("training", 22), ("test", 1)):
        save(base / part / "images" / f"{number:02}_{part}.tif")
        save(base / part / "1st_manual" / f"{number:02}_manual1.gif", mask(number % 16))
        save(base / part / "mask" / f"{number:02}_{part}_mask.gif", mask(*range(16)))
    dataset = FolderDataset(tmp_path)
    assert dataset.layout == "drive"
    assert dataset.names == ["01_test", "21_training", "22_training"]
    assert dataset.splits == ["test", "train", "train"]
    assert [columns_of(dataset, i) for i in range(3)] == [[1], [5], [6]]
    for path in (base / "test" / "1st_manual").iterdir():
        path.unlink()
    (base / "test" / "1st_manual").rmdir()
    dataset = FolderDataset(tmp_path)
    assert dataset.splits == ["train", "train"]
    assert any("test has no 1st_manual" in note for note in dataset.notes)
    save(base / "training" / "1st_manual" / "22_manual2.gif", mask(1))
    with pytest.raises(DataError, match="Several masks for one image"):
        FolderDataset(tmp_path)


def test_dsb2018(tmp_path):
    for number in range(60):  # a crowd of folders
        name = f"{number:04x}"
        save(tmp_path / "stage1_train" / name / "images" / f"{name}.png", mode="RGBA")
        for nucleus in range(3):
            path = tmp_path / "stage1_train" / name / "masks" / f"{nucleus}ab.png"
            save(path, mask(4 * nucleus))
    dataset = FolderDataset(tmp_path)
    assert dataset.layout == "dsb2018"
    assert len(dataset) == 60
    assert columns_of(dataset, 59) == [0, 4, 8]
    assert dataset[0].image.shape[0] == 3
    for path in (tmp_path / "stage1_train" / "0007" / "masks").iterdir():
        path.unlink()
    (tmp_path / "stage1_train" / "0009" / "images" / "0009.png").unlink()
    with pytest.raises(DataError) as caught:
        FolderDataset(tmp_path)
    assert len(caught.value.files) == 1 + 3
    assert "0007.png" in str(caught.value)


def save_slice(root, name, label=None):
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / f"{name}.h5", "w") as file:
        file["image"] = np.linspace(0, 1, SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE)
        label = np.repeat(np.arange(4, dtype=np.uint8), 4) if label is None else label
        file["label"] = np.broadcast_to(label, SHAPE)
        file["scribble"] = np.zeros(SHAPE, np.uint16)


def test_acdc(tmp_path):
    root = tmp_path / "ACDC_training_slices"
    for name in ("patient002_frame12_slice_10", "patient002_frame12_slice_2"):
        save_slice(root, name)
    save_slice(root, "patient001_frame01_slice_1", np.zeros(16, np.uint8))
    (root / "train.list").write_text("patient001\n")
    dataset = FolderDataset(tmp_path)
    assert dataset.layout == "acdc"
    assert dataset.classes == 4
    assert dataset.names[1].endswith("slice_2")
    assert dataset.groups == ["patient001", "patient002", "patient002"]
    sample = dataset[2]
    assert sample.image.shape == (3, *SHAPE)
    assert sample.image.min() == 0
    assert sample.image.max() == 1
    assert np.array_equal(sample.mask[0], np.repeat(np.arange(4), 4))
    assert not dataset[0].mask.any()
    assert FolderDataset(tmp_path, classes=2)[2].mask.unique().tolist() == [0, 1]
    with pytest.raises(DataError, match="classes=3"):
        FolderDataset(tmp_path, classes=3)
    save_slice(root, "patient003_frame01_slice_1", np.full(16, 7, np.uint8))
    with pytest.raises(DataError, match=r"holds the values \[7\]"):
        FolderDataset(tmp_path).mask(3)
    whole = (root / "patient001_frame01_slice_1.h5").read_bytes()
    (root / "patient001_frame01_slice_1.h5").write_bytes(whole[:700])
    (root / "patient003_frame01_slice_1.h5").write_text("version https://git-lfs.github.com/\n")
    with h5py.File(root / "patient004_frame01_slice_1.h5", "w") as file:
        file["picture"] = np.zeros(SHAPE)
    with pytest.raises(DataError, match=r"(?s)git lfs.*it has picture") as caught:
        FolderDataset(tmp_path)
    assert {path.name[:10] for path in caught.value.files} == {
        "patient001",
        "patient003",
        "patient004",
    }


def test_a_named_layout_is_asked_for_and_nothing_else(tmp_path):
    save(tmp_path / "images" / "a.png")
    save(tmp_path / "masks" / "a.png", mask(1))
    assert FolderDataset(tmp_path, layout="pairs").names == ["a"]
    with pytest.raises(DataError, match=r"not the layout 'drive'.*\n.*1st_manual") as caught:
        FolderDataset(tmp_path, layout="drive")
    assert "images/, masks/" in str(caught.value)
