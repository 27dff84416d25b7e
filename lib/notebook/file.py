"""What a notebook says about itself: its title, its opening table and its parameters."""

import ast
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

OPENING_ROWS = ("You will", "Needs", "Cost", "Status")
PARAMETER_TYPES = (bool, int, float, str, list, dict, type(None))


class NotebookError(ValueError):
    """A notebook that cannot be run as it is; the message names the file and the remedy."""


def read_notebook(path: str | Path) -> NotebookNode:
    """Read ``path`` as nbformat 4.

    Raises:
        NotebookError: when the file is missing, is no JSON or is no notebook.
    """
    path = Path(path)
    try:
        node = nbformat.read(path, as_version=4)
        nbformat.validate(node)
    except OSError as error:
        raise NotebookError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # nbformat fails on a strange file in whatever way it happens to
        reason = str(error).partition("\n")[0]
        raise NotebookError(f"{path}: not a valid notebook ({reason})") from None
    return node


def tags(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def title(node: NotebookNode) -> str:
    """Return the text of the first heading of level one, or an empty string."""
    for cell in node.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^# +(.+)$", cell.source, re.M)):
            return found[1].strip()
    return ""


def opening_table(node: NotebookNode) -> dict[str, str]:
    """Return the rows of the opening table, such as ``{"Cost": "2 min CPU, 1 GB"}``.

    A row reads ``| **Cost** | 2 min CPU, 1 GB |``; only the first three cells are looked at.
    """
    text = "\n".join(cell.source for cell in node.cells[:3] if cell.cell_type == "markdown")
    rows = re.findall(r"^\|\s*\*\*(.+?)\*\*\s*\|\s*(.*?)\s*\|\s*$", text, re.M)
    return {name: value for name, value in rows if name in OPENING_ROWS}


def parameters_of(node: NotebookNode, name: str) -> dict[str, object]:
    """Return the parameters and their defaults from the one cell tagged ``parameters``.

    Papermill's own inspection compares text and skips a line with two equal signs; here the cell
    is parsed, so that a default keeps its type.

    Raises:
        NotebookError: no such cell, several, or a line that is not ``name = literal``.
    """
    cells = [cell for cell in node.cells if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise NotebookError(
            f"{name}: {len(cells)} cells are tagged 'parameters', exactly one is needed "
            "(without it, values given with -p would be overwritten)"
        )
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise NotebookError(f"{name}: the parameters cell is not Python: {error}") from None
    return dict(_parameter(statement, name) for statement in statements)


def _parameter(statement: ast.stmt, name: str) -> tuple[str, object]:
    match statement:
        case ast.Assign(targets=[ast.Name(id=key)], value=value):
            pass
        case _:
            raise NotebookError(
                f"{name}: the parameters cell may hold 'name = literal' only, "
                f"not: {ast.unparse(statement)}"
            )
    try:
        default = ast.literal_eval(value)
    except ValueError:
        raise NotebookError(
            f"{name}: parameter '{key}' is computed ({ast.unparse(value)}); write a literal here "
            "and derive values in the next cell"
        ) from None
    if not isinstance(default, PARAMETER_TYPES):
        raise NotebookError(
            f"{name}: parameter '{key}' is a {type(default).__name__}; use a number, text, "
            "True/False, None, a list or a dictionary"
        )
    return key, default
