"""Takes out of an executed notebook what belongs to one machine: times, paths, live widgets.

And makes its figures small: pictures full of noise are what a notebook's size consists of.
"""

import base64
import io
import re
import tempfile
from pathlib import Path

from nbformat import NotebookNode
from PIL import Image

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_METADATA = ("tags", "jupyter")
COLOURS = 256  # of a stored figure: one byte a pixel instead of four


def clean(node: NotebookNode, root: Path) -> NotebookNode:
    """Strip ``node`` in place and return it.

    - Metadata: only the kernel and the language are kept, for a cell its tags and folding.
    - Widget views are dropped: without a running kernel they show nothing, and their fixed twin
      stands in the same notebook.
    - In text outputs ``root`` (the repository) becomes relative and the home folder ``~``.
    - Figures keep ``COLOURS`` colours, which makes pictures of photographs a third as large.
    """
    language = node.metadata.get("kernelspec", {}).get("language", "python")
    node.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": language, "name": "python3"},
        language_info={"name": language},
    )
    for cell in node.cells:
        kept = {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}
        cell.metadata = NotebookNode(kept)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_widget(output)]
            for output in cell.outputs:
                _hide_paths(output, root)
                _shrink_figure(output)
    return node


def _is_widget(output: NotebookNode) -> bool:
    return WIDGET_VIEW in output.get("data", {})


def _hide_paths(output: NotebookNode, root: Path) -> None:
    for key in ("text", "evalue"):
        if key in output:
            output[key] = _relative(output[key], root)
    if "traceback" in output:
        output.traceback = [_relative(line, root) for line in output.traceback]
    for key, value in output.get("data", {}).items():
        if key.startswith("text/"):
            output.data[key] = _relative(value, root)


def _shrink_figure(output: NotebookNode) -> None:
    """Replace a PNG by one with a palette, where that is smaller; the second time nothing is."""
    data = output.get("data", {})
    if "image/png" not in data:
        return
    stored = base64.b64decode(data["image/png"])
    with Image.open(io.BytesIO(stored)) as figure:
        if figure.mode == "P":
            return
        # Figures are drawn on white: what is transparent would turn black without its alpha.
        white = Image.new("RGBA", figure.size, "white")
        flat = Image.alpha_composite(white, figure.convert("RGBA")).convert("RGB")
    smaller = io.BytesIO()
    # Maximum coverage keeps the rare colours of points and lines, k-means the photograph's. Not
    # dithered: dots would cost more bytes than they add.
    few = flat.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    few.save(smaller, "PNG", optimize=True)
    if len(smaller.getvalue()) < len(stored):
        data["image/png"] = base64.b64encode(smaller.getvalue()).decode()


def _relative(text: str, root: Path) -> str:
    # IPython compiles each cell under a numbered name in the folder for temporary files.
    cell_file = re.escape(tempfile.gettempdir()) + r"/ipykernel_\d+/\d+\.py"
    text = re.sub(cell_file, "<cell>", text)
    text = text.replace(f"{root}/", "").replace(str(root), ".")
    home = Path.home()
    return text if home == Path(home.anchor) else text.replace(str(home), "~")
