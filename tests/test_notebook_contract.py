"""The notebooks keep their contract, and each point of the contract is really checked."""

import copy
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from lib.notebook.checks import check_folder, check_notebook
from lib.notebook.clean import WIDGET_VIEW

FOLDER = Path(__file__).parent.parent / "notebooks"
HOME = "/" + "home/somebody/data"  # in two parts, for this file is searched for such paths as well


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_keeps_the_contract(path):
    assert check_notebook(path) == []


def test_notebooks_are_numbered_in_order():
    assert check_folder(FOLDER) == []


@pytest.fixture(scope="module")
def good(write_notebook, tmp_path_factory):
    """A notebook of 30 cells that keeps the contract."""
    path = tmp_path_factory.mktemp("good") / "01_good.ipynb"
    node = nbformat.read(
        write_notebook(path, "print(profile, resolve(output).name, seed)"), as_version=4
    )
    node.cells[2].metadata.tags = ["nbval-check-output"]
    node.cells[2].outputs = [new_output("stream", name="stdout", text="quick outputs 0\n")]
    node.cells.append(new_markdown_cell("**Predict.** What?\n<details>This.</details>"))
    for heading in ("Exercises", "Summary", "References"):
        node.cells.append(new_markdown_cell(f"## {heading}"))
    folded = {"tags": ["solution"], "jupyter": {"source_hidden": True, "outputs_hidden": True}}
    node.cells += [new_code_cell("x = 1", metadata=copy.deepcopy(folded)) for _ in range(3)]
    node.cells += [new_markdown_cell("text") for _ in range(30 - len(node.cells))]
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        cell.execution_count = number
    return node


def faults(node, path):
    nbformat.write(node, path)
    return "\n".join(check_notebook(path))


def test_a_good_notebook_has_no_faults(good, tmp_path):
    assert faults(good, tmp_path / "01_good.ipynb") == ""


def display(kind, data="x"):
    return new_output("display_data", data={kind: data})


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def changed(number, **values):
    return lambda node: node.cells[number].update(values)


def tagged(number, *tags):
    return lambda node: node.cells[number].metadata.update(tags=list(tags))


def shown(output):
    return lambda node: node.cells[2].outputs.append(output)


PARAMETERS = "profile = 'quick'\noutput = 'outputs'\nseed = 0\n"
BREAKS = {
    "the first cell opens with a title": changed(0, source="text"),
    "the opening table lacks its row: | **Cost**": changed(0, source="# T\n| **Needs** | x |"),
    "the row Cost states minutes": changed(0, source="# T\n| **Cost** | little |"),
    "0 cells are tagged 'parameters'": tagged(1),
    "parameter 'seed' is missing": changed(1, source="profile = 'quick'"),
    "'profile' is 'paper'; in every notebook": changed(1, source="profile = 'paper'\nseed = 0"),
    "'dataset' and 'data_root' come together": changed(1, source=PARAMETERS + "data_root = ''"),
    "'output' is used as it is: resolve(output)": changed(2, source="print(output)"),
    "'steps' is never used": changed(1, source=PARAMETERS + "steps = 3"),
    "'seed' is never used": changed(2, source="seed = 5"),
    "46 cells": lambda node: node.cells.extend(new_markdown_cell() for _ in range(16)),
    "29 cells": lambda node: node.cells.pop(),
    "an empty code cell": changed(2, source=""),
    "has 26 lines": changed(2, source="pass\n" * 26),
    "the median code cell has 9": lambda node: [
        cell.update(source="pass\n" * 9) for cell in node.cells if cell.cell_type == "code"
    ],
    "not run from top to bottom": changed(2, execution_count=7),
    "ended with ValueError": shown(new_output("error", ename="ValueError", evalue="x")),
    "wrote to stderr: 'careful'": shown(printed("careful", "stderr")),
    "keeps a live widget": shown(display(WIDGET_VIEW, {})),
    "draws SVG": shown(display("image/svg+xml")),
    "keeps a progress bar": shown(printed("10%\r20%")),
    "prints a memory address": shown(display("text/plain", "<X at 0x7f3a2c01d9d0>")),
    "the kernel is not 'python3'": lambda node: node.metadata.kernelspec.update(name="mine"),
    "metadata papermill": lambda node: node.cells[2].metadata.update(papermill={}),
    "metadata widgets": lambda node: node.metadata.update(widgets={}),
    "[markdown] (See ": changed(4, source=f"See {HOME}"),
    f"holds a path of one machine: {HOME}": shown(display("text/html", f"<p>{HOME}</p>")),
    "no cell is tagged nbval-check-output": tagged(2),
    "has no output to compare": changed(2, outputs=[]),
    "tagged raises-exception": tagged(2, "nbval-check-output", "raises-exception"),
    "steers nbval by a comment": changed(2, source="# NBVAL_SKIP\nprint(1)"),
    "links to 99_gone.ipynb, which is not there": changed(3, source="[x](99_gone.ipynb)"),
    "no heading 'Exercises'": changed(4, source="text"),
    "no **Predict** question": changed(3, source="text"),
    "2 code cells are tagged 'solution'": tagged(7),
    "is a solution in plain sight": lambda node: node.cells[7].metadata.pop("jupyter"),
    "1.1 MB, at most 1": shown(display("image/png", "A" * 1_100_000)),
    "not a valid notebook": changed(3, cell_type="poem"),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_each_breach_is_found(fault, good, tmp_path):
    node = copy.deepcopy(good)
    BREAKS[fault](node)
    assert fault in faults(node, tmp_path / "01_good.ipynb")


def test_the_opening_story_may_be_short(good, tmp_path):
    node = copy.deepcopy(good)
    node.cells = [*node.cells[:3], new_markdown_cell("The end.")]
    assert faults(node, tmp_path / "00_story.ipynb") == ""


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["00_a", "01_b"], None),
        (["00_a", "02_b"], None),
        (["00_a", "00_b"], "numbers are 00, 00"),
        (["00_a", "01_Big"], "01_Big.ipynb: name it NN_slug.ipynb"),
        (["0_a"], "0_a.ipynb: name it NN_slug.ipynb"),
    ],
)
def test_names_are_numbered_slugs(names, fault, tmp_path):
    for name in names:
        (tmp_path / f"{name}.ipynb").touch()
    found = check_folder(tmp_path)
    assert found == [] if fault is None else fault in found[0]
