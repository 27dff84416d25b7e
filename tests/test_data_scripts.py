"""The scripts as a user runs them: small copies of the true layouts, from a server or a file."""

import hashlib
import io
import json
import os
import stat
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest
from http_server import Server, send
from PIL import Image

from data_scripts import _fetch, checkpoints
from data_scripts._cli import main
from data_scripts._sets import Count
from data_scripts.acdc import ACDC
from data_scripts.busi import BUSI
from data_scripts.covid_qu_ex import COVID_QU_EX
from data_scripts.drive import DRIVE
from data_scripts.dsb2018 import DSB2018
from data_scripts.isic2017 import ISIC2017
from data_scripts.isic2018 import ISIC2018
from data_scripts.kvasir import KVASIR
from data_scripts.montgomery_shenzhen import MONTGOMERY, SHENZHEN

ALL = [
    ACDC,
    BUSI,
    COVID_QU_EX,
    DRIVE,
    DSB2018,
    ISIC2017,
    ISIC2018,
    KVASIR,
    MONTGOMERY,
    SHENZHEN,
]


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def picture(kind="PNG", mask=False):
    pixels = np.zeros((8, 10), np.uint8) if mask else np.arange(80, dtype=np.uint8).reshape(8, 10)
    if mask:
        pixels[2:5, 3:7] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def slices():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["image"] = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
        file["label"] = np.eye(8, dtype=np.uint8)
    return buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def kvasir_files(number=2):
    files = {"Kvasir-SEG/kavsir_bboxes.json": b"{}"}
    for i in range(number):
        files[f"Kvasir-SEG/images/c{i}.jpg"] = picture("JPEG")
        files[f"Kvasir-SEG/masks/c{i}.jpg"] = picture("JPEG", mask=True)
    return files


def isic_files():
    return [
        {"ISIC_Training_Input/ISIC_0000001.jpg": picture("JPEG"), "ISIC_Training_Input/a.txt": b""},
        {"ISIC_Training_GroundTruth/ISIC_0000001_segmentation.png": picture(mask=True)},
    ]


def montgomery_files():
    folder = "MontgomerySet"
    return {
        f"{folder}/CXR_png/MCUCXR_1_0.png": picture(),
        f"{folder}/ManualMask/leftMask/MCUCXR_1_0.png": picture(mask=True),
        f"{folder}/ManualMask/rightMask/MCUCXR_1_0.png": picture(mask=True),
    }


def covid_files():
    files = {}
    for kind, masks in (("Lung", ["lung"]), ("Infection", ["lung", "infection"])):
        base = f"{kind} Segmentation Data/{kind} Segmentation Data/Train/COVID-19"
        files[f"{base}/images/covid_1.png"] = picture()
        files |= {f"{base}/{mask} masks/covid_1.png": picture(mask=True) for mask in masks}
    return files


SMALL = {  # one archive each, as the user has it: data set, files, number of image-mask pairs
    "kvasir": (KVASIR, kvasir_files(), 2),
    "covid_qu_ex": (COVID_QU_EX, covid_files(), 1),
    "busi": (
        BUSI,
        {
            "Dataset_BUSI_with_GT/benign/benign (1).png": picture(),
            "Dataset_BUSI_with_GT/benign/benign (1)_mask.png": picture(mask=True),
            "Dataset_BUSI_with_GT/benign/benign (1)_mask_1.png": picture(mask=True),
        },
        1,
    ),
    "montgomery": (MONTGOMERY, montgomery_files(), 1),
    "drive": (
        DRIVE,
        {
            "DRIVE/training/images/21_training.tif": picture("TIFF"),
            "DRIVE/training/1st_manual/21_manual1.gif": picture("GIF", mask=True),
        },
        1,
    ),
    "dsb2018": (
        DSB2018,
        {
            "ab/images/ab.png": picture(),
            "ab/masks/1.png": picture(mask=True),
            "cd/images/cd.png": picture(),
            "cd/masks/1.png": picture(mask=True),
        },
        2,
    ),
    "acdc": (ACDC, {"ACDC_training_slices/patient001_frame01_slice_1.h5": slices()}, 1),
}


def small(dataset, files, **changes):
    """The data set with the counts of a small copy, and without the hash of the true archive."""
    names = list(files)
    counts = tuple(replace(count, number=count.found(names)) for count in dataset.counts)
    sources = tuple(replace(s, known_hash=None, size=None) for s in dataset.sources)
    return replace(dataset, counts=counts, unpacked=100_000, **{"sources": sources, **changes})


def served(server, number=2, **changes):
    """Small Kvasir-SEG at the server, with the archive's bytes."""
    files = kvasir_files(number)
    source = replace(KVASIR.sources[0], url=server.url(), known_hash=None, size=None, **changes)
    return small(KVASIR, files, sources=(source,)), zipped(files)


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_the_user_s_archive_stays_even_where_downloads_lie(tmp_path):
    dataset, files, _ = SMALL["kvasir"]
    archive = tmp_path / "archives" / "archive.zip"
    archive.parent.mkdir()
    archive.write_bytes(zipped(files))
    assert main([small(dataset, files)], ["--root", str(tmp_path), "--archive", str(archive)]) == 0
    assert archive.exists()


@pytest.mark.parametrize("name", SMALL)
def test_an_archive_that_the_user_has_becomes_a_data_set_that_opens(name, tmp_path, capsys):
    dataset, files, pairs = SMALL[name]
    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped(files))
    root = tmp_path / "data"
    options = ["--root", str(root), "--archive", str(archive)]
    assert main([small(dataset, files)], options) == 0
    out = capsys.readouterr().out
    assert dataset.licence in out
    assert f"opens {pairs} image-mask pairs" in out
    assert sorted(tree(root / name).values()) == sorted(files.values())
    assert archive.exists(), "the user's own file must stay"
    assert main([small(dataset, files)], ["--root", str(root), "--check"]) == 0
    assert "all files have their recorded size" in capsys.readouterr().out


def test_a_download_is_unpacked_and_the_second_run_does_nothing(server, tmp_path, capsys):
    dataset, body = served(server)
    server.plan = [send(body)]
    for _ in range(2):
        assert main([dataset], ["--root", str(tmp_path)]) == 0
    assert len(server.requests) == 1
    assert "is there already and complete; nothing was done" in capsys.readouterr().out
    assert tree(tmp_path / "kvasir") == kvasir_files()
    assert visible(tmp_path) == ["kvasir", "kvasir.files.tsv", "kvasir.source.json"]
    record = json.loads((tmp_path / "kvasir.source.json").read_text())["archives"]
    assert record["kvasir-seg.zip"]["sha256"] == hashlib.sha256(body).hexdigest()
    assert record["kvasir-seg.zip"]["from"] == server.url()


def test_keep_archive_and_check_of_its_hash(server, tmp_path, capsys):
    dataset, body = served(server)
    server.plan = [send(body)]
    assert main([dataset], ["--root", str(tmp_path), "--keep-archive"]) == 0
    kept = tmp_path / "archives" / "kvasir-seg.zip"
    assert kept.read_bytes() == body
    assert main([dataset], ["--root", str(tmp_path), "--check"]) == 0
    kept.write_bytes(body + b"x")
    assert main([dataset], ["--root", str(tmp_path), "--check"]) == 1
    assert "SHA-256 not as recorded" in capsys.readouterr().out


def test_the_first_download_is_trusted_and_a_later_one_must_equal_it(server, tmp_path, capsys):
    dataset, body = served(server)
    server.plan = [send(body)]
    assert main([dataset], ["--root", str(tmp_path)]) == 0
    os.rename(tmp_path / "kvasir", tmp_path / "away")
    server.plan = [send(zipped(kvasir_files() | {"Kvasir-SEG/new.txt": b"new"}))]
    assert main([dataset], ["--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "but the first download had" in error
    assert "delete" in error
    assert not (tmp_path / "kvasir").exists()


def test_a_known_hash_and_a_pinned_one(server, tmp_path, capsys):
    digest = "sha256:" + "0" * 64
    dataset, body = served(server)
    dataset = replace(dataset, sources=(replace(dataset.sources[0], known_hash=digest),))
    server.plan = [send(body)]
    assert main([dataset], ["--root", str(tmp_path)]) == 1
    assert "pin the hash you trust with --sha256" in capsys.readouterr().err
    assert visible(tmp_path) == ["archives"]
    pin = hashlib.sha256(body).hexdigest()
    assert main([dataset], ["--root", str(tmp_path), "--sha256", pin]) == 0


def test_the_user_s_archive_may_be_pinned_and_need_not_be_the_official_one(tmp_path, capsys):
    files = kvasir_files()
    archive = tmp_path / "kvasir-seg.zip"
    archive.write_bytes(zipped(files))
    right, wrong = hashlib.sha256(archive.read_bytes()).hexdigest(), "0" * 64
    dataset = small(KVASIR, files, sources=KVASIR.sources)
    options = ["--root", str(tmp_path / "data"), "--archive", str(archive), "--sha256"]
    assert main([dataset], [*options, wrong]) == 1
    assert f"sha256 is {right}, but {wrong} is expected" in capsys.readouterr().err
    assert main([dataset], [*options, f"{archive.name}={right}"]) == 0
    assert "warning: " + str(archive) + ": not the publisher's file" in capsys.readouterr().out
    drive, files, _ = SMALL["drive"]
    archive.write_bytes(zipped(files))
    assert main([small(drive, files)], [*options, wrong]) == 1
    assert f"but {wrong} is expected" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["mirror.zip", "mirror/"])
def test_a_mirror_serves_the_same_file(server, tmp_path, address):
    dataset, body = served(server)
    dataset = replace(dataset, sources=(replace(dataset.sources[0], url="http://127.0.0.1:9/x"),))
    server.plan = [send(body)]
    mirror = server.url(address)
    assert main([dataset], ["--root", str(tmp_path), "--url", mirror]) == 0
    name = dataset.sources[0].filename if address.endswith("/") else ""
    assert server.requests[0]["path"] == f"/{address}{name}"


def test_a_moved_address_names_the_home_page(server, tmp_path, capsys):
    dataset, _ = served(server)
    server.plan = [send(b"", status=404)]
    assert main([dataset], ["--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "answers 404 Not Found; look whether the address moved" in error
    assert KVASIR.homepage in error


def test_several_archives_make_one_data_set(server, tmp_path, capsys):
    archives = dict(zip(("images.zip", "masks.zip"), map(zipped, isic_files()), strict=True))
    first, second = ISIC2018.sources[:2]
    sources = (
        replace(first, filename="images.zip", known_hash=None, size=None),
        replace(second, filename="masks.zip", known_hash=None, size=None),
    )
    files = {name: b"" for part in isic_files() for name in part}
    dataset = small(ISIC2018, files, sources=sources)

    def any_file(handler):
        send(archives[handler.path.rpartition("/")[2]])(handler)

    server.plan = [any_file]
    root = ["--root", str(tmp_path / "data")]
    assert main([dataset], [*root, "--url", server.url("one.zip")]) == 1
    assert "end --url with /" in capsys.readouterr().err
    assert main([dataset], [*root, "--sha256", "0" * 64]) == 1
    assert "as NAME=HASH; there are images.zip, masks.zip" in capsys.readouterr().err
    assert main([dataset], [*root, "--sha256", "mask.zip=" + "0" * 64]) == 1
    assert "as NAME=HASH; there are images.zip, masks.zip" in capsys.readouterr().err
    masks = tmp_path / "masks.zip"
    masks.write_bytes(archives["masks.zip"])
    options = [*root, "--url", server.url("folder/"), "--archive", str(masks)]
    assert main([dataset], options) == 0
    assert [request["path"] for request in server.requests] == ["/folder/images.zip"]
    assert "opens 1 image-mask pairs" in capsys.readouterr().out


def test_shenzhen_takes_images_and_masks_whatever_the_mask_archive_is_called(tmp_path, capsys):
    images = tmp_path / "ChinaSet_AllFiles.zip"
    images.write_bytes(
        zipped(
            {
                "ChinaSet_AllFiles/CXR_png/CHNCXR_0001_0.png": picture(),
                "ChinaSet_AllFiles/CXR_png/CHNCXR_0002_0.png": picture(),
                "ChinaSet_AllFiles/ClinicalReadings/CHNCXR_0001_0.txt": b"normal",
            }
        )
    )
    masks = tmp_path / "archive.zip"  # a browser's name for a download from Kaggle
    masks.write_bytes(zipped({"mask/mask/CHNCXR_0001_0_mask.png": picture(mask=True)}))
    counts = (Count("images", "*/cxr_png/*.png", 2), Count("masks", "*_mask.png", 1))
    dataset = replace(SHENZHEN, counts=counts)
    options = ["--root", str(tmp_path / "data"), "--archive", str(masks), str(images)]
    assert main([dataset], options) == 0
    assert "opens 1 image-mask pairs" in capsys.readouterr().out


def test_a_folder_that_the_user_has_is_checked_in_place(tmp_path, capsys):
    dataset = small(KVASIR, kvasir_files())
    for name, data in kvasir_files().items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    before = tree(tmp_path)
    options = ["--root", str(tmp_path / "data"), "--archive", str(tmp_path / "mine")]
    assert main([dataset], options) == 0
    out = capsys.readouterr().out
    assert f'root="{(tmp_path / "mine").as_posix()}"' in out
    assert "no record of the unpacking" in out
    assert tree(tmp_path) == before


def test_check_names_what_is_missing_changed_and_added(server, tmp_path, capsys):
    dataset, body = served(server, number=3)
    server.plan = [send(body)]
    assert main([dataset], ["--root", str(tmp_path)]) == 0
    images = tmp_path / "kvasir" / "Kvasir-SEG" / "images"
    (images / "c0.jpg").unlink()
    (images / "c1.jpg").write_bytes(b"")
    (images / "note.txt").write_bytes(b"mine")
    before = tree(tmp_path)
    capsys.readouterr()
    assert main([dataset], ["--root", str(tmp_path), "--check"]) == 1
    out = capsys.readouterr().out
    assert "1 files are missing: Kvasir-SEG/images/c0.jpg" in out
    assert "1 files have another size: Kvasir-SEG/images/c1.jpg" in out
    assert "1 files were added: Kvasir-SEG/images/note.txt" in out
    assert "images: 2 found, 3 expected" in out
    assert main([dataset], ["--root", str(tmp_path)]) == 1
    assert "not in order: move it away and run again" in capsys.readouterr().out
    assert tree(tmp_path) == before


def test_check_before_anything_is_there(tmp_path, capsys):
    assert main([KVASIR], ["--root", str(tmp_path / "data"), "--check"]) == 1
    assert "no such folder; run without --check" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()


def test_a_picture_that_does_not_open_is_reported_and_nothing_is_lost(tmp_path, capsys):
    files = kvasir_files()
    files["Kvasir-SEG/images/c0.jpg"] = picture("JPEG")[:100]
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(files))
    options = ["--root", str(tmp_path / "data"), "--archive", str(archive)]
    assert main([small(KVASIR, files)], options) == 1
    out = capsys.readouterr().out
    assert "FolderDataset (kvasir) does not open it" in out
    assert "c0.jpg" in out
    assert tree(tmp_path / "data" / "kvasir") == files


def test_another_data_set_s_archive_is_refused(tmp_path, capsys):
    archive = tmp_path / "kvasir-seg.zip"
    archive.write_bytes(zipped(kvasir_files(number=1)))
    options = ["--root", str(tmp_path / "data"), "--archive", str(archive)]
    assert main([small(KVASIR, kvasir_files())], options) == 1
    error = capsys.readouterr().err
    assert "not the expected data set: images: 1 found, 2 expected" in error
    assert error.count("\n") == 1
    assert visible(tmp_path / "data") == []
    assert archive.exists()


def test_another_count_only_warns_where_versions_differ(tmp_path, capsys):
    files = covid_files()
    archive = tmp_path / "covidqu.zip"
    archive.write_bytes(zipped(files))
    options = ["--root", str(tmp_path / "data"), "--archive", str(archive)]
    assert main([COVID_QU_EX], options) == 0
    assert "warning: lung images: 1 found, 33920 expected" in capsys.readouterr().out


def test_a_failed_unpacking_leaves_the_archive_and_no_folder(server, tmp_path, capsys):
    dataset, body = served(server)
    damaged = bytearray(body)
    damaged[body.index(b"\xff\xd8") + 40] ^= 1
    server.plan = [send(bytes(damaged))]
    assert main([dataset], ["--root", str(tmp_path)]) == 1
    assert "CRC" in capsys.readouterr().err
    assert visible(tmp_path) == ["archives"]
    assert visible(tmp_path / "archives") == ["kvasir-seg.zip"]
    (tmp_path / "archives" / "kvasir-seg.zip").unlink()
    server.plan = [send(body)]
    assert main([dataset], ["--root", str(tmp_path)]) == 0


@pytest.mark.parametrize("moment", ["unpack", "rename"])
def test_an_interruption_never_shows_half_a_folder(server, tmp_path, capsys, monkeypatch, moment):
    dataset, body = served(server)
    server.plan = [send(body)]

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "unpack":
            patch.setattr(_fetch, "check_files", interrupt)
        else:
            patch.setattr(_fetch.os, "rename", interrupt)
        assert main([dataset], ["--root", str(tmp_path)]) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "kvasir").exists()
    assert main([dataset], ["--root", str(tmp_path)]) == 0
    assert len(server.requests) == 1, "the archive was kept"
    assert tree(tmp_path / "kvasir") == kvasir_files()


def test_what_a_killed_run_left_is_cleared(server, tmp_path):
    dataset, body = served(server)
    server.plan = [send(body)]
    stale = tmp_path / ".kvasir.unpacking" / "Kvasir-SEG" / "images" / "c9.jpg"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    assert main([dataset], ["--root", str(tmp_path)]) == 0
    assert tree(tmp_path / "kvasir") == kvasir_files()


def test_two_processes_do_not_fetch_the_same_set(server, tmp_path, capsys):
    dataset, body = served(server)
    server.plan = [send(body)]
    with _fetch.exclusive(tmp_path, "kvasir"):
        assert main([dataset], ["--root", str(tmp_path)]) == 1
    assert "another process is fetching it" in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize("dataset", [DRIVE, ACDC])
def test_sets_behind_a_registration_say_how_to_get_them(dataset, tmp_path, capsys):
    assert main([dataset], ["--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "register at https://" in error
    assert "--archive FILE" in error


def test_without_the_kaggle_client_the_remedies_are_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([COVID_QU_EX], ["--root", str(tmp_path / "data")]) == 1
    error = capsys.readouterr().err
    assert "https://www.kaggle.com/datasets/anasmohammedtahir/covidqu" in error
    assert "pip install kaggle" in error
    assert "--archive FILE" in error
    assert error.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for the client is a shell script")
def test_the_user_s_kaggle_client_is_used(tmp_path, capsys, monkeypatch):
    ready = tmp_path / "ready.zip"
    ready.write_bytes(zipped(covid_files()))
    client = tmp_path / "bin" / "kaggle"
    client.parent.mkdir()
    client.write_text(
        '#!/bin/sh\n[ "$1 $2 $3 $4 $5" = '
        '"datasets download -d anasmohammedtahir/covidqu -p" ] || exit 3\n'
        f'cp "{ready}" "$6/covidqu.zip"\n'
    )
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{client.parent}{os.pathsep}{os.environ['PATH']}")
    dataset = small(COVID_QU_EX, covid_files())
    assert main([dataset], ["--root", str(tmp_path / "data")]) == 0
    assert 'task="infection")' in capsys.readouterr().out
    assert sorted(tree(tmp_path / "data" / "covid_qu_ex")) == sorted(covid_files())
    client.write_text("#!/bin/sh\nexit 1\n")
    assert main([dataset], ["--root", str(tmp_path / "other")]) == 1
    assert "ended with status 1" in capsys.readouterr().err


def test_a_wrong_path_and_a_wrong_hash_are_plain_errors(tmp_path, capsys):
    options = ["--root", str(tmp_path), "--archive", str(tmp_path / "none.zip")]
    assert main([KVASIR], options) == 1
    assert "none.zip: no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as status:
        main([KVASIR], ["--sha256", "abc"])
    assert status.value.code == 2


def test_one_of_several_sets_is_chosen_with_only(tmp_path, capsys):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(montgomery_files()))
    both = [small(MONTGOMERY, montgomery_files()), SHENZHEN]
    options = ["--root", str(tmp_path / "data"), "--archive", str(archive)]
    assert main(both, options) == 1
    assert "--only montgomery or shenzhen" in capsys.readouterr().err
    assert main(both, [*options, "--only", "montgomery"]) == 0


def test_a_root_that_cannot_be_written_is_a_plain_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([KVASIR], ["--root", str(tmp_path / "file" / "data")]) == 1
    error = capsys.readouterr().err
    assert "check that the path exists" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("dataset", ALL, ids=lambda dataset: dataset.name)
def test_descriptions_are_complete(dataset):
    assert dataset.homepage.startswith("https://")
    assert dataset.licence
    assert dataset.sources or dataset.how_to_get
    for source in dataset.sources:
        assert (source.url is None) != (source.kaggle is None)
        assert source.url is None or source.url.startswith("https://")
        if source.known_hash:
            algorithm, digest = source.known_hash.split(":")
            assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
    assert sum(source.size or 0 for source in dataset.sources) <= dataset.unpacked


def small_checkpoint(server, monkeypatch):
    body = bytes(range(256)) * 2_000
    source = replace(
        checkpoints.CHECKPOINTS["vit_b"],
        url=server.url("sam_vit_b_01ec64.pth"),
        size=len(body),
        known_hash="sha256:" + hashlib.sha256(body).hexdigest(),
    )
    monkeypatch.setitem(checkpoints.CHECKPOINTS, "vit_b", source)
    return body


def test_checkpoints_are_downloaded_and_checked(server, tmp_path, monkeypatch, capsys):
    body = small_checkpoint(server, monkeypatch)
    server.plan = [send(body, break_after=300_000), send(body)]
    monkeypatch.setattr("data_scripts._download.time.sleep", lambda _: None)
    for _ in range(2):
        assert checkpoints.main(["vit_b", "--root", str(tmp_path)]) == 0
    assert len(server.requests) == 2
    path = tmp_path / "sam_vit_b_01ec64.pth"
    assert path.read_bytes() == body
    assert f'load_sam("vit_b", "{path.as_posix()}")' in capsys.readouterr().out
    assert checkpoints.main(["vit_b", "--root", str(tmp_path), "--check"]) == 0
    path.write_bytes(body[:-1] + b"x")
    assert checkpoints.main(["vit_b", "--root", str(tmp_path), "--check"]) == 1
    assert "sha256 is" in capsys.readouterr().err
    assert checkpoints.main(["vit_h", "--root", str(tmp_path), "--check"]) == 1
    assert "sam_vit_h_4b8939.pth: no such file" in capsys.readouterr().err


def test_a_checkpoint_that_the_user_has_is_copied_only_if_right(
    server, tmp_path, monkeypatch, capsys
):
    body = small_checkpoint(server, monkeypatch)
    mine = tmp_path / "mine.pth"
    mine.write_bytes(body[1:])
    options = ["vit_b", "--root", str(tmp_path / "checkpoints"), "--archive", str(mine)]
    assert checkpoints.main(options) == 1
    assert "mine.pth: 511999 bytes, but 512000 are expected" in capsys.readouterr().err
    mine.write_bytes(body)
    assert checkpoints.main(options) == 0
    assert (tmp_path / "checkpoints" / "sam_vit_b_01ec64.pth").read_bytes() == body
    assert server.requests == []


def test_all_checkpoints_that_are_there_are_checked(server, tmp_path, monkeypatch, capsys):
    body = small_checkpoint(server, monkeypatch)
    root = ["--root", str(tmp_path), "--check"]
    assert checkpoints.main(root) == 1
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(body)
    assert checkpoints.main(root) == 0
    (tmp_path / "sam_vit_l_0b3195.pth").write_bytes(body)
    assert checkpoints.main(root) == 1
    assert "sam_vit_l_0b3195.pth: 512000 bytes, but 1249524607" in capsys.readouterr().err
    for wrong in ([], ["vit_x"]):
        with pytest.raises(SystemExit):
            checkpoints.main(wrong)


def test_official_checkpoints_are_those_that_the_library_expects():
    from lib.sam.checkpoints import OFFICIAL

    pinned = {n: (s.filename, s.known_hash) for n, s in checkpoints.CHECKPOINTS.items()}
    assert pinned == {n: (o.file, f"sha256:{o.sha256}") for n, o in OFFICIAL.items()}
    for source in checkpoints.CHECKPOINTS.values():
        assert source.url == checkpoints.BASE + source.filename


def synthetic_options(root, *more):
    options = ["--modality", "microscopy", "--domain", "seen", "--count", "3", "--size", "32"]
    return ["--root", str(root), *options, *more]


def test_synthetic_sets_are_generated_checked_and_written_as_files(tmp_path, capsys):
    from data_scripts import synthetic
    from lib.data.folder import FolderDataset
    from lib.data.synthetic import draw

    assert synthetic.main(synthetic_options(tmp_path, "--check")) == 1
    assert "not generated yet, or damaged; run without --check" in capsys.readouterr().err
    for _ in range(2):
        assert synthetic.main(synthetic_options(tmp_path, "--png")) == 0
    assert synthetic.main(synthetic_options(tmp_path, "--check")) == 0
    folder = tmp_path / "png" / "microscopy-seen-32px-3-seed0"
    opened = FolderDataset(folder)
    assert len(opened) == 3
    image, mask = draw("microscopy", "seen", seed=0, index=2, size=32)
    np.testing.assert_array_equal(np.rint(opened.image(2).numpy() * 255), image.transpose(2, 0, 1))
    np.testing.assert_array_equal(opened.mask(2).numpy(), mask)


def test_a_synthetic_cache_that_was_changed_is_found(tmp_path, capsys):
    from data_scripts import synthetic

    assert synthetic.main(synthetic_options(tmp_path)) == 0
    path = next((tmp_path / "synthetic").glob("*/images.npy"))
    images = np.load(path)
    images[1, 4, 4, 0] ^= 1
    np.save(path, images)
    assert synthetic.main(synthetic_options(tmp_path, "--check")) == 1
    assert "microscopy-seen-0001: the cached picture is not" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:-100])
    size = path.stat().st_size
    assert synthetic.main(synthetic_options(tmp_path, "--check")) == 1
    assert "or damaged; run without --check" in capsys.readouterr().err
    assert path.stat().st_size == size


def test_a_wrong_synthetic_option_is_a_plain_error(tmp_path, capsys):
    from data_scripts import synthetic

    assert synthetic.main(synthetic_options(tmp_path, "--size", "8")) == 1
    error = capsys.readouterr().err
    assert "size must be at least 32" in error
    assert error.count("\n") == 1
