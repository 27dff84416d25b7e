"""Badges and installing cells are stamped from the project's address, and vanish without one."""

import ast
import re

import nbformat
import pytest

from lib.notebook.checks import check_notebook
from lib.notebook.colab import main, published, stamp
from lib.notebook.file import opening_table, read_notebook
from lib.paths import repository_root

PROJECT = """
[project]
version = "1.2.0"
dependencies = ["torch>=2.10", "ipython>=8", "jupyterlab>=4", "monai>=1.4"]
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "notebooks").mkdir()
    original = repository_root() / "notebooks" / "01_data.ipynb"
    (tmp_path / "notebooks" / "01_data.ipynb").write_bytes(original.read_bytes())
    return tmp_path


def write(project, address):
    urls = f'[project.urls]\nRepository = "{address}"\n' if address else ""
    (project / "pyproject.toml").write_text(PROJECT + urls)


def test_stamped_with_an_address_and_clean_without(project):
    path = project / "notebooks" / "01_data.ipynb"
    before = read_notebook(path)
    write(project, "https://github.com/somebody/sam-few-labels.git")
    for _ in range(2):  # a second stamping changes nothing
        assert main(project) == 0
    node = read_notebook(path)
    link = "colab.research.google.com/github/somebody/sam-few-labels/blob/v1.2.0/notebooks/01_data"
    assert node.cells[0].source.count(link) == 1
    assert opening_table(node) == opening_table(before)
    (cell,) = [c for c in node.cells if "colab" in c.metadata.get("tags", [])]
    assert '%pip install -q "torch>=2.10" "monai>=1.4"\n' in cell.source
    assert "--branch v1.2.0 https://github.com/somebody/sam-few-labels " in cell.source
    ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.M))

    write(project, None)
    assert main(project) == 0
    assert read_notebook(path).cells == before.cells


def test_a_stamped_notebook_keeps_the_contract_once_it_is_run(project):
    write(project, "https://github.com/somebody/sam-few-labels")
    main(project)
    path = project / "notebooks" / "01_data.ipynb"
    node = read_notebook(path)
    for number, cell in enumerate([c for c in node.cells if c.cell_type == "code"], start=1):
        cell.execution_count = number
    nbformat.write(node, path)
    assert [fault for fault in check_notebook(path) if "links to" not in fault] == []


def test_other_addresses_are_refused(project, capsys):
    write(project, "https://example.org/somebody/project")
    assert main(project) == 1
    assert "Colab opens https://github.com/OWNER/NAME" in capsys.readouterr().err


def test_this_project_s_own_address_or_none():
    release = published(repository_root())
    node = read_notebook(repository_root() / "notebooks" / "01_data.ipynb")
    before = [cell.source for cell in node.cells]
    stamp(node, "01_data.ipynb", release)
    assert [cell.source for cell in node.cells] == before, "run python -m lib.notebook.colab"
