from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

OPENING = """# Title

| | |
|---|---|
| **You will** | see something |
| **Needs** | nothing |
| **Cost** | 1 min CPU, 1 GB |
| **Status** | reproduced |"""


@pytest.fixture(scope="session")
def write_notebook():
    """Writes a tiny notebook: an opening, a parameters cell and the given code cells."""

    def write(path, *sources, parameters='profile = "quick"\noutput = "outputs"\nseed = 0'):
        cells = [new_markdown_cell(OPENING)]
        if parameters is not None:
            cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        cells += [new_code_cell(source) for source in sources]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
        return path

    return write
