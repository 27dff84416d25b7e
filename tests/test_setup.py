"""`.ci/setup` with stand-ins for Python, pip and df on the path."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parent.parent / ".ci/setup"
# Answers the version test, `-m venv` by copying itself, and `-m pip` by a line in pip.log.
PYTHON = """#!/bin/sh
minor={minor}
case "$*" in
    --version) echo "Python 3.$minor.0" ;;
    *version_info*) [ "$minor" -ge 11 ] && [ "$minor" -lt 14 ] ;;
    *ensurepip*) exit {venv} ;;
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip"*) echo "$*" >>pip.log; [ ! -e broken ] ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(SETUP, tmp_path / ".ci/setup")
    (tmp_path / "requirements.lock").write_text("one==1\n")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "bin").mkdir()
    add_python(tmp_path, "python3", 11)
    # Room enough, whatever the disk below the tests has left.
    add_disk(tmp_path, 99)
    return tmp_path


def add_program(project, name, text):
    path = project / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def add_python(project, name, minor, venv=0):
    add_program(project, name, PYTHON.format(minor=minor, venv=venv))


def add_disk(project, gigabytes):
    line = f"disk 99 9 {gigabytes * 1024 * 1024} 9% /"
    add_program(project, "df", f"#!/bin/sh\necho Filesystem\necho '{line}'\n")


def set_up(project, **environment):
    # Only the stand-ins and the system's own tools, none of the machine's Pythons.
    tools = project / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("sh", "dirname", "cksum", "cat", "awk", "rm", "mkdir", "touch", "cp"):
        if not (tools / name).exists():
            (tools / name).symlink_to(shutil.which(name))
    path = {"PATH": f"{project / 'bin'}{os.pathsep}{tools}"}
    command = [project / ".ci/setup"]
    return subprocess.run(command, env=path | environment, capture_output=True, text=True)


def pip_calls(project):
    log = project / "pip.log"
    return log.read_text().count("-r requirements.lock") if log.exists() else 0


def test_the_second_call_does_nothing(project):
    assert set_up(project).returncode == 0
    calls = (project / "pip.log").read_text().splitlines()
    assert [call.split()[-2:] for call in calls] == [["-r", "requirements.lock"], ["-e", "."]]
    second = set_up(project)
    assert (second.returncode, second.stdout, pip_calls(project)) == (0, "", 1)


def test_a_changed_lock_is_installed(project):
    set_up(project)
    (project / "requirements.lock").write_text("one==2\n")
    assert set_up(project).returncode == 0
    assert pip_calls(project) == 2


def test_a_broken_set_up_starts_again(project):
    (project / "broken").touch()
    assert set_up(project).returncode != 0
    (project / ".venv/half").touch()
    (project / "broken").unlink()
    assert set_up(project).returncode == 0
    assert not (project / ".venv/half").exists()


def test_an_environment_that_was_there_is_completed_not_replaced(project):
    (project / ".venv/bin").mkdir(parents=True)
    shutil.copy(project / "bin/python3", project / ".venv/bin/python")
    (project / ".venv/mine").touch()
    assert set_up(project).returncode == 0
    assert (project / ".venv/mine").exists()
    assert pip_calls(project) == 1


@pytest.mark.parametrize("minor", [9, 14])
def test_another_python_is_refused(minor, project):
    add_python(project, "python3", minor)
    result = set_up(project)
    assert result.returncode == 1
    assert f"Python 3.11, 3.12 or 3.13 is needed (here: Python 3.{minor}.0)" in result.stderr
    assert "make PYTHON=" in result.stderr
    assert not (project / ".venv").exists()


def test_a_fitting_python_is_found_beside_an_old_one(project):
    add_python(project, "python3", 9)
    add_python(project, "python3.12", 12)
    result = set_up(project)
    assert (result.returncode, "Python 3.12.0" in result.stdout) == (0, True)


def test_no_python_at_all(project):
    (project / "bin/python3").unlink()
    assert "python3 is not there" in set_up(project).stderr


def test_a_named_python_is_taken(project):
    add_python(project, "mine", 13)
    assert "Python 3.13.0" in set_up(project, PYTHON="mine").stdout


def test_a_python_without_venv_is_told(project):
    add_python(project, "python3", 12, venv=1)
    assert "apt install python3-venv" in set_up(project).stderr


def test_a_full_disk_is_told_before_anything_is_installed(project):
    add_disk(project, 7)
    result = set_up(project)
    assert result.returncode == 1
    assert "8 GB of free disk space are needed here, there are 7" in result.stderr
    assert pip_calls(project) == 0
