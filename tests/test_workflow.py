"""The commands that the workflow scripts show in their docstrings can be given as they stand."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parent.parent / "workflow"
SCRIPTS = ("esp_medsam", "knowledge_mining", "semi_supervised")
COMMAND = re.compile(r"^ {4}python workflow/\S+\.py (.*)$", re.MULTILINE)  # lines are joined


@pytest.mark.parametrize("script", SCRIPTS)
def test_commands_of_the_docstring_are_taken_by_the_parser(script, monkeypatch):
    loaded = runpy.run_path(str(WORKFLOW / f"{script}.py"))
    commands = COMMAND.findall(loaded["__doc__"])
    assert commands
    for command in commands:
        filled = re.sub(r"\b(DIR|NAME)\b", "folder", command)
        monkeypatch.setattr("sys.argv", [f"{script}.py", *shlex.split(filled)])
        loaded["_arguments"]()


def test_no_script_with_options_is_left_out():
    with_options = [p.stem for p in WORKFLOW.glob("*.py") if "ArgumentParser" in p.read_text()]
    assert sorted(with_options) == sorted(SCRIPTS)
