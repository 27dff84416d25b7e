"""Open in Colab: stamp a badge and an installing cell into the notebooks, or take them out again.

    python -m lib.notebook.colab

The address is `urls.Repository` in the project table of pyproject.toml, the release `v` and its
version. While there is no address there is nothing to open, and no notebook shows a dead badge.
After stamping, run the notebooks in place: the new cell belongs to the committed run.
"""

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lib.notebook.file import read_notebook, tags
from lib.paths import repository_root

TAG = "colab"
BADGE = re.compile(r"\[!\[Open in Colab\]\(\S+\)\]\(\S+\)\n\n")
PICTURE = "https://colab.research.google.com/assets/colab-badge.svg"
# Colab has its own Jupyter, whose kernel breaks under another one.
JUPYTER = ("ipython", "jupyterlab", "nbclient", "nbval", "papermill")
CELL = """\
# Where the project is not installed, as on Colab: fetch this release and what it needs.
import importlib.util
import sys

if importlib.util.find_spec("lib") is None:
    !git clone -q --depth 1 --branch {release} {address} {name}
    %pip install -q {packages}
    sys.path.insert(0, "{name}")"""


@dataclass(frozen=True)
class Release:
    """Where the notebooks are published: https://github.com/OWNER/NAME, a tag, its requirements."""

    address: str
    release: str
    packages: tuple[str, ...]

    @property
    def name(self) -> str:
        """The repository's own name, which its clone gets."""
        return self.address.rpartition("/")[2]


def published(root: Path) -> Release | None:
    """The address that pyproject.toml in `root` names; None where it names none.

    Raises:
        ValueError: Colab opens notebooks on GitHub alone, and this is another address.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "").removesuffix(".git").rstrip("/")
    if not address:
        return None
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise ValueError(
            f"urls.Repository is {address!r}; Colab opens https://github.com/OWNER/NAME"
        )
    needed = (text for text in project["dependencies"] if not _is_jupyter(text))
    return Release(address, f"v{project['version']}", tuple(needed))


def stamp(node: NotebookNode, file: str, release: Release | None) -> None:
    """Give the notebook `file` the badge and the cell of `release`; with None take them away."""
    node.cells = [cell for cell in node.cells if TAG not in tags(cell)]
    opening = node.cells[0]
    opening.source = BADGE.sub("", opening.source)
    if release is None:
        return
    title, sentence, rest = opening.source.split("\n\n", 2)
    where = release.address.replace("https://github.com", "/github")
    link = f"https://colab.research.google.com{where}/blob/{release.release}/notebooks/{file}"
    badge = f"[![Open in Colab]({PICTURE})]({link})"
    opening.source = "\n\n".join([title, sentence, badge, rest])
    packages = " ".join(f'"{package}"' for package in release.packages)
    code = CELL.format(
        release=release.release, address=release.address, name=release.name, packages=packages
    )
    cell = nbformat.v4.new_code_cell(code, metadata={"tags": [TAG]})
    cell["id"] = TAG  # the same at each stamping
    node.cells.insert(2, cell)  # after the parameters


def _is_jupyter(requirement: str) -> bool:
    return re.match(r"[\w-]+", requirement)[0].lower() in JUPYTER


def main(root: Path | None = None) -> int:
    """Stamp every notebook of the project; 1 where the address cannot be used."""
    root = root or repository_root()
    try:
        release = published(root)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        node = read_notebook(path)
        stamp(node, path.name, release)
        nbformat.write(node, path)
    print(f"badges open {release.address}" if release else "no address: no badges")
    return 0


if __name__ == "__main__":
    sys.exit(main())
