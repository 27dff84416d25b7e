"""What must not be among the committed files, and what the packages of `lib` may import."""

import ast
import subprocess
from pathlib import Path

import pytest
import yaml

from lib.notebook.checks import MACHINE_PATH

REPOSITORY = Path(__file__).parent.parent
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".npy", ".h5", ".zip")
MAX_BYTES = 1_000_000


@pytest.fixture(scope="module")
def tracked():
    command = ["git", "-c", "safe.directory=*", "-C", REPOSITORY, "ls-files", "-z"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in result.stdout.split("\0") if (path := REPOSITORY / name).is_file()]


def imports(path):
    """Parts of `lib` that a file imports, such as {"data", "files"}."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("lib.")}


def names(paths):
    return [str(path.relative_to(REPOSITORY)) for path in paths]


def test_no_path_of_a_machine(tracked):
    text = [path for path in tracked if path.suffix not in (*PICTURES, ".safetensors")]
    assert names(path for path in text if MACHINE_PATH.search(path.read_text("utf-8"))) == []


def test_no_data_and_no_pictures_outside_the_documentation(tracked):
    """Figures live in notebooks; the README's own under docs/."""
    pictures = [path for path in tracked if path.suffix.lower() in PICTURES]
    assert names(path for path in pictures if path.parts[len(REPOSITORY.parts)] != "docs") == []


def test_only_weights_are_large(tracked):
    large = [path for path in tracked if path.stat().st_size > MAX_BYTES]
    assert names(path for path in large if path.suffix != ".safetensors") == []


def test_the_licence_is_the_one_that_is_declared():
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text()
    assert 'license = "Apache-2.0"' in (REPOSITORY / "pyproject.toml").read_text()


def test_the_three_papers_are_cited():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["license"]) == ("1.2.0", "Apache-2.0")
    papers = [paper["identifiers"][0]["value"] for paper in citation["references"]]
    assert papers == ["arXiv:2503.06816", "arXiv:2412.13742", "arXiv:2407.14153"]
    assert all(paper["authors"] and paper["title"] for paper in citation["references"])


@pytest.mark.parametrize("package", ["data", "evaluation", "losses", "models", "prompts", "sam"])
def test_ground_packages_import_no_other_package(package):
    """Training is built from them; the single modules in `lib` itself are for all."""
    found = set().union(*(imports(p) for p in (REPOSITORY / "lib" / package).rglob("*.py")))
    assert {name for name in found if (REPOSITORY / "lib" / name).is_dir()} == {package}
