"""A process that Caploom starts imports the same Caploom, whatever lies in the working directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import caploom
from caploom.common.child_processes import child_environment

PACKAGES = ("caploom", "dagster_project")


@pytest.fixture
def folder(tmp_path):
    """A user's folder with packages of the same names as Caploom's."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('another {name} was imported')")
    return tmp_path


def inspected(name, folder, environment):
    """What `python -m inspect` finds out about a package, which it imports."""
    command = [sys.executable, "-m", "inspect", "--details", name]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_child_ignores_the_packages_of_the_working_directory(folder, name):
    done = inspected(name, folder, child_environment())
    assert done.returncode == 0, done.stderr
    assert str(Path(caploom.__file__).parents[1] / name / "__init__.py") in done.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_without_it_the_working_directory_comes_first(folder, name):
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    assert f"another {name} was imported" in inspected(name, folder, plain).stderr


def test_what_is_in_the_environment_stays_there():
    variables = child_environment({"PYTHONPATH": "/somebodys/own", "NAME": "value"})
    assert variables["NAME"] == "value"
    assert variables["PYTHONPATH"].split(os.pathsep)[-1] == "/somebodys/own"
