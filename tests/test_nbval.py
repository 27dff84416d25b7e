"""The comparison of notebooks with their committed outputs really compares."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns

REPOSITORY = Path(__file__).parent.parent
SANITIZE = REPOSITORY / "tests/nbval_sanitize.cfg"
RULE = re.compile(r"^# example: (.+)\n# becomes: (.+)\nregex: (.+)\nreplace: (.+)$", re.MULTILINE)
# Source, committed output, and whether the cell is tagged to be compared.
CELLS = [
    ("print('dice 0.70 in 3 s')", "dice 0.71 in 9 s\n", True),
    ("print('dice 0.70 in 3 s')", "dice 0.70 in 9 s\n", True),
    ("import warnings\nwarnings.warn('new')\nprint(1)", "1\n", True),
    ("print(2)", "3\n", False),
    ("print(4)\nassert 5 == 6", "4\n", False),
]


@pytest.mark.parametrize("rule", RULE.findall(SANITIZE.read_text()), ids=lambda rule: rule[3])
def test_each_rule_does_what_its_example_says(rule):
    example, becomes, pattern, replacement = rule
    assert re.sub(pattern, replacement, example) == becomes


def test_no_rule_is_without_an_example():
    text = SANITIZE.read_text()
    assert len(get_sanitize_patterns(text)) == len(RULE.findall(text)) > 0


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory, write_notebook):
    """What `make test` says of each of `CELLS`: passed or failed, and the whole text."""
    root = tmp_path_factory.mktemp("nbval")
    shutil.copy(REPOSITORY / "conftest.py", root)
    sources = [source for source, _, _ in CELLS] + ["open('stray.txt', 'w').close()"]
    path = write_notebook(root / "notebooks/00_a.ipynb", *sources)
    node = nbformat.read(path, as_version=4)
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        cell.execution_count = number
    for cell, (_, output, tagged) in zip(code[1:-1], CELLS, strict=True):
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=output)]
        cell.metadata.tags = ["nbval-check-output"] if tagged else []
    nbformat.write(node, path)
    options = re.search(
        r"^NBVAL := (.+?[^\\])$", (REPOSITORY / "Makefile").read_text(), re.M | re.S
    )
    options = options[1].replace("\\\n", " ").replace("tests/nbval_sanitize.cfg", str(SANITIZE))
    command = [sys.executable, "-m", "pytest", "-v", "--color=no", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, *options.split(), "notebooks"], cwd=root, capture_output=True, text=True
    )
    return result.returncode, re.findall(r"::Cell \d+ (\w+)", result.stdout), result.stdout


def test_a_changed_number_fails_and_other_seconds_do_not(verdicts):
    assert verdicts[1][1:3] == ["FAILED", "PASSED"]


def test_a_new_warning_is_no_difference(verdicts):
    assert verdicts[1][3] == "PASSED"


def test_an_untagged_cell_is_run_but_not_compared(verdicts):
    assert verdicts[1][4:6] == ["PASSED", "FAILED"]


def test_a_file_left_beside_the_notebooks_is_named(verdicts):
    assert verdicts[0] == 1
    assert "left in notebooks/ by a notebook: stray.txt" in verdicts[2]
