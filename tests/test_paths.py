"""One rule for relative paths, wherever a notebook was started."""

from pathlib import Path

from lib.paths import repository_root, resolve


def test_relative_paths_count_from_the_root_of_the_repository(monkeypatch):
    root = repository_root()
    monkeypatch.chdir(root / "notebooks")
    assert resolve("data/kvasir") == root / "data" / "kvasir"
    assert resolve(root / "data") == root / "data"
    assert resolve("~/masks") == Path.home() / "masks"


def test_an_empty_parameter_names_no_file():
    assert resolve("") is None
