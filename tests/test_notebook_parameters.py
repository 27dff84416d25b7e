import pytest

from lib.notebook.file import NotebookError, opening_table, parameters_of, read_notebook
from lib.notebook.parameters import assign, parse_value

DEFAULTS = {"05_mining": {"lr": 1e-3, "steps": 40, "name": "a"}, "04_baselines": {"steps": 20}}


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("1e-4", 1e-3, 1e-4),  # YAML would make text of it
        ("2", 1e-3, 2.0),
        ("007", "", "007"),  # YAML would make 7 of it
        ("3", "2", "3"),
        ("-3", 1, -3),
        ("False", True, False),
        ("true", False, True),
        ("[0.05, 1]", [0.25], [0.05, 1]),
        ("{'a': 1}", {}, {"a": 1}),
        ("3", None, 3),
        ("plain text", None, "plain text"),
    ],
)
def test_a_value_takes_the_type_of_the_default(text, default, value):
    parsed = parse_value(text, default, "key")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("007", 1),
        ("1.5", 1),
        ("1e3", 1),
        ("True", 1),
        ("abc", 0.5),
        ("yes", True),
        ("1", True),
        ("a, b", [1]),
        ("['a']", [1]),
        ("(1, 2)", [1]),
        ("[1]", {}),
    ],
)
def test_a_value_of_another_type_is_refused(text, default):
    with pytest.raises(NotebookError, match=r"parameter 'key': .* is not .*the default is"):
        parse_value(text, default, "key")


def test_a_value_reaches_every_notebook_that_knows_it():
    values = assign([("steps", "7"), ("lr", "1e-4")], DEFAULTS)
    assert values == {"05_mining": {"steps": 7, "lr": 1e-4}, "04_baselines": {"steps": 7}}


def test_all_faults_are_named_at_once():
    requests = [("stepps", "3"), ("lr", "fast"), ("steps", "1"), ("steps", "2"), ("zzz", "1")]
    with pytest.raises(NotebookError) as caught:
        assign(requests, DEFAULTS)
    message = str(caught.value)
    assert "no parameter 'stepps' in 05_mining, 04_baselines; did you mean 'steps'?" in message
    assert "05_mining: parameter 'lr': 'fast' is not a number (the default is 0.001)" in message
    assert "parameter 'steps' is given twice" in message
    assert "no parameter 'zzz' in 05_mining, 04_baselines; known: lr, name, steps" in message


def test_parameters_are_read_with_their_types(write_notebook, tmp_path):
    source = 'a = 1\nb = -2.5e-3  # x = y\nc = "k=v"\nd = [\n  1,\n  2]\ne = None\nf = {"g": True}'
    node = read_notebook(write_notebook(tmp_path / "x.ipynb", parameters=source))
    expected = {"a": 1, "b": -0.0025, "c": "k=v", "d": [1, 2], "e": None, "f": {"g": True}}
    assert parameters_of(node, "x") == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "x: 0 cells are tagged 'parameters'"),
        ("a = 2 * 3", r"parameter 'a' is computed \(2 \* 3\)"),
        ("a = b = 1", "may hold 'name = literal' only, not: a = b = 1"),
        ("import os", "may hold 'name = literal' only, not: import os"),
        ("a = (1, 2)", "parameter 'a' is a tuple"),
        ("a =", "not Python"),
    ],
)
def test_a_parameters_cell_that_papermill_misreads_is_refused(
    source, message, write_notebook, tmp_path
):
    node = read_notebook(write_notebook(tmp_path / "x.ipynb", parameters=source))
    with pytest.raises(NotebookError, match=message):
        parameters_of(node, "x")


def test_two_parameters_cells_are_refused(write_notebook, tmp_path):
    node = read_notebook(write_notebook(tmp_path / "x.ipynb", "a = 1"))
    node.cells[-1].metadata.tags = ["parameters"]
    with pytest.raises(NotebookError, match="2 cells are tagged"):
        parameters_of(node, "x")


def test_the_opening_table_is_read(write_notebook, tmp_path):
    table = opening_table(read_notebook(write_notebook(tmp_path / "x.ipynb")))
    assert table["Cost"] == "1 min CPU, 1 GB"
    assert list(table) == ["You will", "Needs", "Cost", "Status"]


@pytest.mark.parametrize("content", ["", "text", '{"a": 1}', '{"cells": 3, "nbformat": 4}'])
def test_a_file_that_is_no_notebook_is_named(content, tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    with pytest.raises(NotebookError, match=r"x\.ipynb: not a valid notebook"):
        read_notebook(path)
