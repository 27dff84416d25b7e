"""A file that is replaced is complete or not there, whatever stops the writer."""

from pathlib import Path

import pytest

from lib.data.splits import Split, load_split, save_split
from lib.files import replacing
from lib.training.small_sam_ingredients import measure


def stop_half_way(monkeypatch):
    """From now on whoever writes a text is interrupted half way."""
    write = Path.write_text

    def half(path, text, *encoding):
        write(path, text[: len(text) // 2], *encoding)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)


def test_a_file_takes_its_name_when_all_went_well(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def write_new(path):
    with replacing(path) as temporary:
        temporary.write_text("new")


def test_a_writer_that_is_stopped_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    path.write_text("old")
    stop_half_way(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        write_new(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_split_leaves_the_old_one(tmp_path, monkeypatch):
    path, old = tmp_path / "split.json", Split(["a"], ["b"], ["c"])
    save_split(old, path)
    stop_half_way(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        save_split(Split(["c"], ["b"], ["a"]), path)
    assert load_split(path) == old


def test_an_interrupted_result_of_an_ingredient_is_not_there(tmp_path, monkeypatch):
    module = "lib.training.small_sam_ingredients"
    monkeypatch.setattr(f"{module}.fit", lambda *arguments, **settings: None)
    monkeypatch.setattr(f"{module}.ImagePool.fill", lambda pool, *arguments: pool)
    stop_half_way(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, {}, seeds=(0,), pool=1, ingredients=(), progress=False)
    assert list(tmp_path.glob("*.json")) == []
