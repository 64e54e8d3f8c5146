"""Caploom: from images with poor captions to a better vision-language training set, and the proof that it is better.

In a notebook or script, begin with `caploom.Factory`.
"""

from importlib import import_module
from typing import Any

from caploom.common.moved_modules import install

__version__ = "0.1.0"

_LAZY = {"Factory": "caploom.notebook.factory"}
"""What is imported when it is asked for, so that `import caploom` stays quick; by name, because every module of the
library imports this one, and none may import upwards."""

install()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
