"""How nbval compares a notebook with its committed outputs, and what it may leave behind."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent / "notebooks"


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Leave stderr out of the comparison: a library's new warning is no other result."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what lies beside the notebooks."""
    session.config.beside_notebooks = _files()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when a notebook left a file in its own folder instead of in outputs/."""
    stray = sorted(_files() - session.config.beside_notebooks)
    if stray:
        print(f"\nleft in {NOTEBOOKS.name}/ by a notebook: {', '.join(stray)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _files() -> set[str]:
    return {
        str(path.relative_to(NOTEBOOKS))
        for path in NOTEBOOKS.rglob("*")
        if ".ipynb_checkpoints" not in path.parts and "__pycache__" not in path.parts
    }
