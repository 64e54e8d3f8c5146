"""What a Python process that this one starts needs in its environment, to import the same Caploom."""

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).parents[2]
"""The folder of the packages `caploom` and `dagster_project`."""


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment (by default this process's), in which `python -m` imports Caploom as this process does.

    `python -m` looks for modules in the working directory first: there a user's own folder `caploom` or
    `dagster_project` would hide the installed one, and a file `random.py` the standard library's. Python's safe path
    leaves that directory out. A Caploom that this process imports from a checkout, and that might be found by the
    working directory alone, is named explicitly.
    """
    variables = dict(os.environ if environment is None else environment)
    variables["PYTHONSAFEPATH"] = "1"
    # Not the folder of all installed packages: what PYTHONPATH names comes before the standard library.
    if _ROOT not in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
        known = variables.get("PYTHONPATH")
        variables["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *([known] if known else [])])
    return variables
