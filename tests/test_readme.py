"""The README says what the records and notebooks say."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("readme", ROOT / "workflow" / "readme.py")
readme = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme)


def test_tables_are_those_of_the_records():
    text = (ROOT / "README.md").read_text("utf-8")
    assert readme.filled(text) == text, "run: python workflow/readme.py"


def test_a_lost_marker_is_an_error():
    with pytest.raises(ValueError, match="marker"):
        readme.filled("# no markers")


def test_every_notebook_stands_in_the_table():
    table = readme.notebooks_table()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in table
