"""The contract of a notebook, checked: ``python -m lib.notebook.checks [FILE...]``.

The contract itself is written down in ``notebooks/README.md``. Each check is a function that
yields the faults it finds, in words that name the remedy.
"""

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from lib.notebook.clean import CELL_METADATA, WIDGET_VIEW
from lib.notebook.colab import TAG as COLAB
from lib.notebook.file import (
    OPENING_ROWS,
    NotebookError,
    opening_table,
    parameters_of,
    read_notebook,
    tags,
    title,
)
from lib.paths import repository_root

MAX_BYTES = 1_000_000
CELLS = range(30, 46)
# The opening story shows the whole way in five minutes; it has no exercises.
STORY = "00"
MAX_LINES, MEDIAN_LINES = 25, 8
EXERCISES = 3
# What a parameter of such a name means is the same in every notebook, so is its default.
STANDARD = {"profile": "quick", "dataset": "synthetic", "data_root": "", "output": "outputs",
            "seed": 0}  # fmt: skip
REQUIRED = ("profile", "seed")
# Jupyter starts a notebook in notebooks/, the runner at the root: a bare relative path means two.
PATHS = ("data_root", "sam_checkpoint", "output")
# These let a cell fail, or escape its comparison, without anybody noticing.
FORBIDDEN_TAGS = ("raises-exception", "nbval-raises-exception", "nbval-skip", "injected-parameters")
CHECKED = "nbval-check-output"
MACHINE_PATH = re.compile(
    r"(?<![\w.~])/(?:home|Users|root|tmp|work|opt|mnt|var)/[\w.]|[A-Z]:\\Users"
)
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")


def check_notebook(path: str | Path) -> list[str]:
    """Return all faults of the notebook at ``path``, each with its remedy; empty when none."""
    path = Path(path)
    try:
        node = read_notebook(path)
    except NotebookError as error:
        return [str(error)]
    story = path.name.startswith(STORY)
    faults = [*check_size(path), *check_opening(node), *check_parameters(node)]
    faults += [*check_cells(node, story=story), *check_order(node), *check_outputs(node)]
    faults += [*check_metadata(node), *check_paths(node), *check_comparison(node)]
    faults += check_links(node, path.parent)
    if not story:
        faults += check_teaching(node)
    return [f"{path.name}: {fault}" for fault in faults]


def check_folder(folder: str | Path) -> list[str]:
    """Return the faults in the names of a folder's notebooks: ``NN_slug``, each number once.

    The number is a notebook's place in the plan, so one that is not written yet leaves a gap.
    """
    names = [path.name for path in sorted(Path(folder).glob("*.ipynb"))]
    faults = [
        f"{name}: name it NN_slug.ipynb, such as 04_supervised_baselines.ipynb"
        for name in names
        if not re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", name)
    ]
    numbers = [name[:2] for name in names]
    if not faults and len(set(numbers)) < len(numbers):
        faults.append(f"numbers are {', '.join(numbers)}: give each notebook its own")
    return faults


def check_size(path: Path) -> Iterator[str]:
    """The file is at most 1 MB, so that it opens at once and its history stays small."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        yield f"{size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.0f}: fewer or smaller figures"


def check_opening(node: NotebookNode) -> Iterator[str]:
    """A title, then a table of what the reader will do, needs, pays, and how far it holds."""
    if not node.cells or not node.cells[0].source.startswith("# ") or not title(node):
        yield "the first cell opens with a title: # Method (authors, venue year)"
    table = opening_table(node)
    for row in OPENING_ROWS:
        if not table.get(row):
            yield f"the opening table lacks its row: | **{row}** | ... |"
    if "Cost" in table and not re.search(r"\d.*\bmin", table["Cost"]):
        yield "the row Cost states minutes, such as: 2 min CPU, 1 GB"


def check_parameters(node: NotebookNode) -> Iterator[str]:
    """One cell of literals; names with a common meaning have the common default; all are used."""
    try:
        parameters = parameters_of(node, "parameters")
    except NotebookError as error:
        yield str(error)
        return
    for key in REQUIRED:
        if key not in parameters:
            yield f"parameter '{key}' is missing"
    for key, default in STANDARD.items():
        if key in parameters and parameters[key] != default:
            yield f"parameter '{key}' is {parameters[key]!r}; in every notebook it is {default!r}"
    if ("dataset" in parameters) != ("data_root" in parameters):
        yield "parameters 'dataset' and 'data_root' come together"
    used = _names_used(node)
    for key in parameters:
        if key not in used:
            yield f"parameter '{key}' is never used: -p {key} would change nothing"
    for key in sorted(_bare_paths(node) & parameters.keys()):
        yield f"'{key}' is used as it is: resolve({key}) finds it from wherever Jupyter was started"


def check_cells(node: NotebookNode, *, story: bool) -> Iterator[str]:
    """Small cells, one idea each, and not too many of them."""
    count = sum(COLAB not in tags(cell) for cell in node.cells)
    if count not in CELLS and not (story and count < CELLS.stop):
        yield f"{count} cells; {CELLS.start} to {CELLS[-1]} make one lesson"
    lines = [len(cell.source.splitlines()) for cell in _code(node)]
    for cell, length in zip(_code(node), lines, strict=True):
        if length == 0:
            yield "an empty code cell: remove it"
        if length > MAX_LINES:
            yield f"{_name(cell)} has {length} lines, at most {MAX_LINES}: split it, or use lib/"
    if lines and statistics.median(lines) > MEDIAN_LINES:
        yield f"the median code cell has {statistics.median(lines):g} lines, at most {MEDIAN_LINES}"


def check_order(node: NotebookNode) -> Iterator[str]:
    """Run from top to bottom in a fresh kernel."""
    counts = [cell.execution_count for cell in _code(node) if cell.source.strip()]
    if counts != list(range(1, len(counts) + 1)):
        yield "not run from top to bottom: python -m lib.run --in-place NUMBER"


def check_outputs(node: NotebookNode) -> Iterator[str]:
    """Outputs that read the same everywhere: no errors, warnings, bars, widgets or addresses."""
    for cell in _code(node):
        for output in cell.outputs:
            data = output.get("data", {})
            if output.output_type == "error":
                yield f"{_name(cell)} ended with {output.ename}"
            if output.get("name") == "stderr":
                yield f"{_name(cell)} wrote to stderr: {output.text.strip()[:80]!r}"
            if WIDGET_VIEW in data:
                yield f"{_name(cell)} keeps a live widget: run it with --in-place, which drops it"
            if "image/svg+xml" in data:
                yield f"{_name(cell)} draws SVG, which differs on each run: use PNG"
            for text in _texts(output):
                if "\r" in text:
                    yield f"{_name(cell)} keeps a progress bar"
                if found := ADDRESS.search(text):
                    yield f"{_name(cell)} prints a memory address: {found[0]}"


def check_metadata(node: NotebookNode) -> Iterator[str]:
    """The kernel is python3, and nothing in the metadata belongs to one machine or one run."""
    if node.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not 'python3'"
    extra = set(node.metadata) - {"kernelspec", "language_info"}
    extra |= {key for cell in node.cells for key in cell.metadata if key not in CELL_METADATA}
    if extra:
        yield f"metadata {', '.join(sorted(extra))}: remove it (python -m lib.run --in-place does)"


def check_paths(node: NotebookNode) -> Iterator[str]:
    """No path of somebody's machine, in a source or in an output."""
    for cell in node.cells:
        outputs = [text for output in cell.get("outputs", []) for text in _texts(output)]
        for text in [cell.source, *outputs]:
            if found := MACHINE_PATH.search(text):
                line = text[found.start() :].splitlines()[0]
                yield f"{_name(cell)} holds a path of one machine: {line[:60]}"


def check_comparison(node: NotebookNode) -> Iterator[str]:
    """Some outputs are compared in every test run, and no cell escapes."""
    checked = [cell for cell in _code(node) if CHECKED in tags(cell)]
    if not checked:
        yield f"no cell is tagged {CHECKED}: tag some that print rounded numbers"
    for cell in checked:
        if not cell.outputs:
            yield f"{_name(cell)} is tagged {CHECKED} but has no output to compare"
    for cell in node.cells:
        for tag in set(tags(cell)) & set(FORBIDDEN_TAGS):
            yield f"{_name(cell)} is tagged {tag}, which hides failures"
        if re.search(r"^\s*#\s*NBVAL_", cell.source, re.M):
            yield f"{_name(cell)} steers nbval by a comment: use the tag {CHECKED}"


def check_links(node: NotebookNode, folder: Path) -> Iterator[str]:
    """What a text links to beside it, such as the next notebook, is there."""
    text = "\n".join(cell.source for cell in node.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^():#]+\.\w+)\)", text):
        if not (folder / target).is_file():
            yield f"links to {target}, which is not there"


def check_teaching(node: NotebookNode) -> Iterator[str]:
    """A prediction to make, exercises whose solutions run, a summary, references."""
    text = "\n".join(cell.source for cell in node.cells if cell.cell_type == "markdown")
    headings = "\n".join(re.findall(r"^#+ .+$", text, re.M)).lower()
    for word in ("exercises", "summary", "references"):
        if word not in headings:
            yield f"no heading '{word.capitalize()}'"
    if "**predict" not in text.lower() or "<details>" not in text:
        yield "no **Predict** question with its answer folded in <details>"
    solutions = [cell for cell in _code(node) if "solution" in tags(cell)]
    if len(solutions) < EXERCISES:
        yield f"{len(solutions)} code cells are tagged 'solution'; {EXERCISES} exercises need one"
    for cell in solutions:
        hidden = cell.metadata.get("jupyter", {})
        if not (hidden.get("source_hidden") and hidden.get("outputs_hidden")):
            yield (
                f"{_name(cell)} is a solution in plain sight: set jupyter.source_hidden and "
                "jupyter.outputs_hidden"
            )


def _code(node: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in node.cells if cell.cell_type == "code"]


def _name(cell: NotebookNode) -> str:
    first = cell.source.strip().partition("\n")[0][:50]
    return f"[{cell.get('execution_count') or cell.cell_type}] ({first})"


def _texts(output: NotebookNode) -> list[str]:
    data = output.get("data", {})
    return [output.get("text", "")] + [data[kind] for kind in data if kind.startswith("text/")]


def _names_used(node: NotebookNode) -> set[str]:
    """Return the variables read anywhere outside the parameters cell."""
    names = [n for tree in _trees(node) for n in ast.walk(tree) if isinstance(n, ast.Name)]
    return {name.id for name in names if isinstance(name.ctx, ast.Load)}


def _bare_paths(node: NotebookNode) -> set[str]:
    """Return the paths among the parameters that are read anywhere but in `resolve(...)`."""
    found = set()
    for tree in _trees(node):
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
        resolved = [a for c in calls if getattr(c.func, "id", "") == "resolve" for a in ast.walk(c)]
        names = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in PATHS]
        found |= {name.id for name in names if name not in resolved}
    return found


def _trees(node: NotebookNode) -> Iterator[ast.Module]:
    """Yield the syntax tree of every code cell but the parameters."""
    for cell in _code(node):
        if "parameters" in tags(cell):
            continue
        # IPython's own lines (%, !) are not Python.
        source = re.sub(r"^\s*[%!].*$", "pass", cell.source, flags=re.M)
        try:
            yield ast.parse(source)
        except SyntaxError:
            continue


def main(arguments: list[str] | None = None) -> int:
    """Check the named notebooks (default: all in ``notebooks/``); return 1 for any fault."""
    folder = repository_root() / "notebooks"
    files = (sys.argv[1:] if arguments is None else arguments) or sorted(folder.glob("*.ipynb"))
    faults = check_folder(folder) + [fault for file in files for fault in check_notebook(file)]
    print("\n".join(faults) or f"{len(files)} notebooks keep the contract")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
