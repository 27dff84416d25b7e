"""pyproject.toml states the ranges; the lock, the conda file and the imports agree with it."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"]]
DEV = [Requirement(line) for line in PROJECT["optional-dependencies"]["dev"]]
# A lock for several Pythons has several lines for one package, each with its marker.
LOCK = [Requirement(line) for line in (REPOSITORY / "requirements.lock").read_text().splitlines()]


def locked_versions(name):
    name = canonicalize_name(name)
    return [lock.specifier for lock in LOCK if canonicalize_name(lock.name) == name]


def test_the_lock_names_one_exact_version_a_line():
    for lock in LOCK:
        assert re.fullmatch(r"==[\w.]+", str(lock.specifier)), lock


@pytest.mark.parametrize("requirement", DIRECT + DEV, ids=lambda requirement: requirement.name)
def test_the_lock_lies_within_the_ranges(requirement):
    versions = locked_versions(requirement.name)
    assert versions, "not in requirements.lock: make lock"
    for version in versions:
        assert requirement.specifier.contains(str(version).removeprefix("==")), version


def test_the_lock_is_closed():
    """Whatever a locked package needs on this machine is locked as well, in a fitting version."""
    missing = []
    for lock in LOCK:
        if lock.marker and not lock.marker.evaluate():
            continue
        try:
            needed = requires(lock.name) or []
        except PackageNotFoundError:
            missing.append(f"{lock.name} is not installed: make .venv")
            continue
        for requirement in map(Requirement, needed):
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            versions = [str(v).removeprefix("==") for v in locked_versions(requirement.name)]
            if not any(requirement.specifier.contains(v, prereleases=True) for v in versions):
                missing.append(f"{lock.name} needs {requirement}, locked are {versions}")
    assert missing == []


def test_conda_takes_the_same_python_and_the_lock():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    python, pip, from_pip = environment["dependencies"]
    assert set(Requirement(python).specifier) == set(
        Requirement(f"python{PROJECT['requires-python']}").specifier
    )
    # No version is written a second time: all come from the lock, the project from this folder.
    assert (pip, from_pip) == ("pip", {"pip": ["-r requirements.lock", "-e ."]})


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize(
    ("folder", "requirements"),
    [("lib", DIRECT), ("data_scripts", DIRECT), ("benchmarks", DIRECT), ("tests", DIRECT + DEV)],
)
def test_imports_are_of_what_the_project_asks_for(folder, requirements):
    asked = {canonicalize_name(requirement.name) for requirement in requirements}
    distributions = packages_distributions()
    stray = set()
    for path in (REPOSITORY / folder).rglob("*.py"):
        for module in {name.partition(".")[0] for name in imported(path)}:
            here = {REPOSITORY / module, path.with_name(module), path.with_name(f"{module}.py")}
            here.add(REPOSITORY / "benchmarks" / f"{module}.py")  # a test of a benchmark
            if module in sys.stdlib_module_names or any(place.exists() for place in here):
                continue
            names = {canonicalize_name(name) for name in distributions.get(module, [module])}
            if not names & asked:
                stray.add(f"{path.relative_to(REPOSITORY)} imports {module}")
    assert stray == set()


def test_the_script_and_the_project_agree_on_python():
    low, high = re.search(
        r"\((3, \d+)\) <= sys.version_info\[:2\] < \((3, \d+)\)",
        (REPOSITORY / ".ci/setup").read_text(),
    ).groups()
    expected = f">={low.replace(', ', '.')},<{high.replace(', ', '.')}"
    assert PROJECT["requires-python"] == expected
