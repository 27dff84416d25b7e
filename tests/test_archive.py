"""Archives that try to harm, archives that are damaged, and honest ones."""

import io
import random
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple

import pytest

import data_scripts._archive as module
from data_scripts._archive import inspect, unpack
from data_scripts._errors import FetchError

LIMIT = 50_000_000
NOISE = random.Random(0).randbytes(300_000)


def make_zip(path, members, method=zipfile.ZIP_STORED):
    """Write a zip of (name, bytes) or (ZipInfo, bytes), duplicates and all."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def make_tar(path, entries, mode="w:gz"):
    """Write a tar of (name, type, link target, bytes)."""
    with tarfile.open(path, mode) as archive:
        for name, kind, target, data in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def refused(archive, folder, pattern, **options):
    with pytest.raises(FetchError, match=pattern) as error:
        unpack(archive, folder, max_bytes=options.pop("max_bytes", LIMIT), **options)
    assert str(archive) in str(error.value)
    assert "\n" not in str(error.value)


def with_mode(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def test_an_honest_zip_is_unpacked_byte_for_byte(tmp_path):
    files = {"set/images/a (1).png": NOISE, "set/masks/a (1).png": b"m", "set/notes.txt": b""}
    archive = make_zip(tmp_path / "a.zip", [("set/images/", b""), *files.items()])
    sizes = unpack(archive, tmp_path / "out", max_bytes=LIMIT)
    assert tree(tmp_path / "out") == files
    assert sizes == {name: len(data) for name, data in files.items()}


def test_an_honest_tar_is_unpacked_byte_for_byte(tmp_path):
    entries = [
        ("./set", tarfile.DIRTYPE, "", b""),
        ("./set/a.png", tarfile.REGTYPE, "", NOISE),
    ]
    archive = make_tar(tmp_path / "a.tar.gz", entries)
    unpack(archive, tmp_path / "out", max_bytes=LIMIT)
    assert tree(tmp_path / "out") == {"set/a.png": NOISE}


def test_what_a_mac_adds_is_left_out(tmp_path):
    junk = ["__MACOSX/set/._a.png", "set/.DS_Store", "set/._a.png", "set/Thumbs.db"]
    members = [("set/a.png", b"a"), *((name, b"junk") for name in junk)]
    unpack(make_zip(tmp_path / "a.zip", members), tmp_path / "out", max_bytes=LIMIT)
    assert tree(tmp_path / "out") == {"set/a.png": b"a"}


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "c:evil", "a/..", "a\x01b"],
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    archive = make_zip(tmp_path / "a.zip", [("good.png", b"g"), (name, b"evil")])
    refused(archive, tmp_path / "out", "leaves its folder")
    assert tree(tmp_path / "out") == {}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "out"]


def test_tar_names_that_leave_the_folder_are_refused(tmp_path):
    for name in ("../evil", "/evil"):
        archive = make_tar(tmp_path / "a.tar", [(name, tarfile.REGTYPE, "", b"x")], "w")
        refused(archive, tmp_path / "out", "leaves its folder")


@pytest.mark.parametrize(
    ("mode", "offence"),
    [
        (stat.S_IFLNK | 0o777, "is a link"),
        (stat.S_IFCHR | 0o600, "is a device"),
        (stat.S_IFBLK | 0o600, "is a device"),
        (stat.S_IFIFO | 0o600, "is a device"),
        (stat.S_IFSOCK | 0o600, "is a device"),
    ],
)
def test_links_and_devices_in_a_zip_are_refused(tmp_path, mode, offence):
    archive = make_zip(tmp_path / "a.zip", [("a", b"a"), (with_mode("bad", mode), b"/etc/passwd")])
    refused(archive, tmp_path / "out", f"'bad' {offence}")


@pytest.mark.parametrize(
    ("kind", "offence"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.BLKTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a device"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, offence):
    entries = [("a", tarfile.REGTYPE, "", b"a"), ("bad", kind, "a", b"")]
    refused(make_tar(tmp_path / "a.tar", entries, "w"), tmp_path / "out", f"'bad' {offence}")


def test_set_user_id_bits_are_not_taken_over(tmp_path):
    member = with_mode("run.sh", stat.S_IFREG | stat.S_ISUID | 0o777)
    unpack(make_zip(tmp_path / "a.zip", [(member, b"x")]), tmp_path / "out", max_bytes=LIMIT)
    assert (tmp_path / "out" / "run.sh").stat().st_mode & (stat.S_ISUID | 0o111) == 0


def test_a_bomb_by_ratio_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("a", bytes(8_000_000))], zipfile.ZIP_DEFLATED)
    refused(archive, tmp_path / "out", "archive bomb")
    # Beside enough noise the archive's own ratio is harmless, the member's is not.
    members = [("noise", NOISE), ("zeros", bytes(8_000_000))]
    archive = make_zip(tmp_path / "b.zip", members, zipfile.ZIP_DEFLATED)
    refused(archive, tmp_path / "out", "'zeros' is an archive bomb")


def test_many_small_members_are_a_bomb_too(tmp_path):
    members = [(f"{i}", bytes(1_000_000)) for i in range(12)]
    archive = make_zip(tmp_path / "a.zip", members, zipfile.ZIP_DEFLATED)
    refused(archive, tmp_path / "out", "12.0 MB, as an archive bomb")


def test_a_bomb_in_a_tar_is_refused(tmp_path):
    archive = make_tar(tmp_path / "a.tgz", [("a", tarfile.REGTYPE, "", bytes(8_000_000))])
    refused(archive, tmp_path / "out", "archive bomb")


def test_a_bomb_by_total_size_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("a", NOISE), ("b", NOISE)])
    refused(archive, tmp_path / "out", "more than 500.0 kB", max_bytes=500_000)
    unpack(archive, tmp_path / "out", max_bytes=600_000)


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    archive = make_zip(tmp_path / "a.zip", [(str(i), b"") for i in range(4)])
    refused(archive, tmp_path / "out", "or 3 files")


def test_well_compressed_label_files_are_no_bomb(tmp_path):
    labels = bytes(900_000) + NOISE  # shrinks 4-fold
    archive = make_zip(tmp_path / "a.zip", [("labels.h5", labels)], zipfile.ZIP_DEFLATED)
    unpack(archive, tmp_path / "out", max_bytes=LIMIT)
    assert tree(tmp_path / "out") == {"labels.h5": labels}


def test_an_encrypted_member_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("secret", b"abc")])
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # general-purpose flag in the local header ...
    data[data.index(b"PK\x01\x02") + 8] |= 1  # ... and in the central directory
    archive.write_bytes(data)
    refused(archive, tmp_path / "out", "'secret' is encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("a/x", b"1"), ("a/x", b"2")])
    refused(archive, tmp_path / "out", "'a/x' overwrites another member")
    archive = make_zip(tmp_path / "b.zip", [("a/x", b"1"), ("a/./x", b"2")])
    refused(archive, tmp_path / "out", "overwrites another member")


def test_a_file_where_another_member_needs_a_folder_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("a/x", b"1"), ("a", b"2")])
    refused(archive, tmp_path / "out", "'a' overwrites another member")


def test_names_that_differ_by_case_are_refused_only_where_the_disk_folds_case(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("Mask.png", b"1"), ("mask.PNG", b"2")])
    assert len(inspect(archive, max_bytes=LIMIT, folds_case=False)) == 2
    with pytest.raises(FetchError, match=r"'mask\.PNG' overwrites another member"):
        inspect(archive, max_bytes=LIMIT, folds_case=True)
    # "é" as one character and as two: one name on such a disk.
    archive = make_zip(tmp_path / "b.zip", [("\u00e9", b"1"), ("e\u0301", b"2")])
    with pytest.raises(FetchError, match="overwrites another member"):
        inspect(archive, max_bytes=LIMIT, folds_case=True)


def test_the_disk_itself_is_asked_whether_it_folds_case(tmp_path):
    (tmp_path / "probe").write_text("")
    assert module._folds_case(tmp_path) == (tmp_path / "PROBE").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["probe"]


def test_all_offenders_are_named_up_to_five(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [(f"../{i}", b"") for i in range(7)])
    refused(archive, tmp_path / "out", r"'\.\./0'.*'\.\./4' and 2 more leaves its folder")


@pytest.mark.parametrize("keep", [0, 3, 100, 150_000, 299_000])
def test_a_truncated_zip_is_refused(tmp_path, keep):
    archive = make_zip(tmp_path / "a.zip", [("a", NOISE)])
    archive.write_bytes(archive.read_bytes()[:keep])
    refused(archive, tmp_path / "out", r"(a truncated zip|an empty file|data), not a whole zip")


@pytest.mark.parametrize("keep", [100, 150_000, 300_000])
def test_a_truncated_tar_is_refused(tmp_path, keep):
    archive = make_tar(tmp_path / "a.tgz", [("a", tarfile.REGTYPE, "", NOISE)])
    archive.write_bytes(archive.read_bytes()[:keep])
    refused(archive, tmp_path / "out", r"(damaged archive|gzip file, not a whole zip or tar)")


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
def test_a_flipped_bit_in_a_compressed_tar_is_found(tmp_path, kind):
    """The checksum of the stream stands behind the end of the archive."""
    archive = make_tar(tmp_path / "a.tar", [("a", tarfile.REGTYPE, "", NOISE)], f"w:{kind}")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    refused(archive, tmp_path / "out", "damaged archive|not a whole zip or tar")


def test_a_flipped_bit_is_found(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("a", NOISE)])
    data = bytearray(archive.read_bytes())
    data[1_000] ^= 1
    archive.write_bytes(data)
    refused(archive, tmp_path / "out", "damaged archive .*CRC")


def test_a_member_that_is_shorter_than_the_listing_says_is_refused(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", [("a", NOISE)])
    for length in (len(NOISE) - 1, len(NOISE) + 1):
        monkeypatch.setattr(module, "_stream", lambda *_, n=length: io.BytesIO(bytes(n)))
        refused(archive, tmp_path / f"out{length}", "is not 300000 bytes long")
        assert (tmp_path / f"out{length}" / "a").stat().st_size <= len(NOISE)


@pytest.mark.parametrize(
    ("start", "guess"),
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"Rar!\x1a\x07", "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git-LFS pointer"),
        (b"\x89PNG", "data"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path, start, guess):
    (tmp_path / "a.zip").write_bytes(start)
    refused(tmp_path / "a.zip", tmp_path / "out", guess)


def test_a_missing_or_empty_archive_is_named(tmp_path):
    refused(tmp_path / "none.zip", tmp_path / "out", "no such file")
    refused(make_zip(tmp_path / "a.zip", [("set/", b"")]), tmp_path / "out", "holds no files")


def test_two_archives_never_overwrite_each_other(tmp_path):
    first = make_zip(tmp_path / "a.zip", [("x", b"1")])
    second = make_zip(tmp_path / "b.zip", [("x", b"2")])
    unpack(first, tmp_path / "out", max_bytes=LIMIT)
    refused(second, tmp_path / "out", "'?x'? is also in another archive")
    assert tree(tmp_path / "out") == {"x": b"1"}


def test_into_replaces_the_folders_that_all_members_share(tmp_path):
    for number, prefix in enumerate(("", "mask/", "mask/mask/")):
        members = [(f"{prefix}{name}", b"x") for name in ("one.png", "two.png")]
        archive = make_zip(tmp_path / f"{number}.zip", members)
        unpack(archive, tmp_path / f"out{number}", max_bytes=LIMIT, into="set/masks")
        assert set(tree(tmp_path / f"out{number}")) == {"set/masks/one.png", "set/masks/two.png"}
    members = [("id/images/id.png", b"i"), ("other/masks/1.png", b"m")]
    archive = make_zip(tmp_path / "deep.zip", members)
    unpack(archive, tmp_path / "deep", max_bytes=LIMIT, into="train")
    assert set(tree(tmp_path / "deep")) == {"train/id/images/id.png", "train/other/masks/1.png"}


def test_too_small_a_disk_is_told_before_unpacking(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1_000))
    archive = make_zip(tmp_path / "a.zip", [("a", NOISE)])
    with pytest.raises(FetchError, match=r"unpacking .*a\.zip needs 300\.0 kB"):
        unpack(archive, tmp_path / "out", max_bytes=LIMIT)
    assert tree(tmp_path / "out") == {}
