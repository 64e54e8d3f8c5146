"""Old names of modules that the guides named: importing one gives the module of today, with a sentence."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "caploom.factory": "caploom.config.factory",
    "caploom.recipes": "caploom.config.recipes",
    "caploom.store": "caploom.storage.store",
    "caploom.training.checkpoint": "caploom.stages.checkpoint",
    "caploom.training_set.exports": "caploom.exports",
    "caploom.training_set.exports.export": "caploom.exports.export",
}
"""Old name to new."""


class _Moved(MetaPathFinder, Loader):
    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is called {new} now: import that.", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        old = module.__spec__.name if module.__spec__ is not None else ""
        module.__spec__ = self._specs.pop(old, None)  # an import leaves the old name's on it


def install() -> None:
    """Have imports find modules by their old names too."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Moved())  # before a package of a new name is looked into for the old one
