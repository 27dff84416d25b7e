"""Where the repository is, so that one rule holds for every relative path a reader may type.

JupyterLab and nbval start a notebook in ``notebooks/``, the runner starts it at the root. So a
relative path in a parameter always counts from the root of the repository.
"""

import tomllib
from pathlib import Path

PROJECT = "sam-few-labels"


def repository_root(start: str | Path | None = None) -> Path:
    """Return the folder of this project's ``pyproject.toml``.

    Searched upwards from ``start`` (default: the working directory), then from this file.

    Raises:
        FileNotFoundError: when neither lies inside a checkout of the project.
    """
    for origin in (Path(start or Path.cwd()), Path(__file__)):
        for folder in (origin.resolve(), *origin.resolve().parents):
            if _is_project(folder / "pyproject.toml"):
                return folder
    raise FileNotFoundError(
        f"no pyproject.toml of {PROJECT} in or above {Path(start or Path.cwd()).resolve()}: "
        "start inside a clone of the repository"
    )


def resolve(path: str | Path) -> Path | None:
    """Return ``path`` made absolute: ``~`` is the home folder, relative counts from the root.

    An empty text, as the parameters of notebooks have it where no file is named, gives None.
    """
    if path == "":
        return None
    path = Path(path).expanduser()
    return path if path.is_absolute() else repository_root() / path


def _is_project(pyproject: Path) -> bool:
    if not pyproject.is_file():
        return False
    with pyproject.open("rb") as file:
        try:
            return tomllib.load(file).get("project", {}).get("name") == PROJECT
        except tomllib.TOMLDecodeError:
            return False
