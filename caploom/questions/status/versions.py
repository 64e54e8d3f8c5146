"""Earlier versions of a slot in the store, read once each; what cannot be read is named and not hidden."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from caploom.errors import StoreError
from caploom.storage.manifest import MANIFEST
from caploom.storage.store import Artifact, Plan, Store

Label = tuple[str, str]
"""An asset and a partition, whatever the version: ("captions/llava", "shard-00003")."""

_SETS = {
    "evaluation_pairs": "evaluation_sets",
    "classification_images": "evaluation_sets",
    "target_set": "target_sets",
}


def address_label(address: str) -> Label:
    """What the artifact at an address is a version of."""
    kind, *name = address.split("/")[:-1]
    if kind in ("captions", "sheared"):
        return f"{kind}/{name[0]}", name[-1]
    return _SETS.get(kind, kind), name[-1] if name else ""


class Versions:
    """The artifacts of a store, as one call looks at them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, Artifact | None] = {}
        self._folders: dict[Path, list[Path]] = {}
        self._problems: dict[str, str] = {}
        store.refresh()

    @property
    def damaged(self) -> tuple[str, ...]:
        """A sentence for each manifest that could not be read."""
        return tuple(self._problems.values())

    def problem(self, address: str) -> str | None:
        """Why the manifest at an address cannot be read; None where it can, or there is none."""
        return self._problems.get(address)

    def find(self, plan: Plan) -> Artifact | None:
        """The finished artifact of a plan; None where there is none, or none that can be read."""
        return self.read(plan.address)

    def read(self, address: str) -> Artifact | None:
        """The same of an address."""
        if address not in self._read:
            try:
                self._read[address] = self._store.read(address)
            except StoreError as error:
                self._problems[address] = str(error)
                self._read[address] = None
        return self._read[address]

    def newest(self, *parts: str | None) -> Artifact | None:
        """The newest finished artifact of a kind and name, of which None stands for any part."""
        found = [each for each in (self.read(address) for address in self._addresses(parts)) if each is not None]
        return max(found, key=_age, default=None)

    def _addresses(self, parts: Iterable[str | None]) -> Iterator[str]:
        folders = [self._store.root]
        for part in (*parts, None):  # the last is the fingerprint
            folders = [
                below
                for folder in folders
                for below in (self._below(folder) if part is None else [folder / part])
                if part is None or below.is_dir()
            ]
        return (folder.relative_to(self._store.root).as_posix() for folder in folders if (folder / MANIFEST).is_file())

    def _below(self, folder: Path) -> list[Path]:
        if folder not in self._folders:
            below = folder.iterdir() if folder.is_dir() else iter(())
            self._folders[folder] = sorted(each for each in below if each.is_dir() and not each.name.startswith("."))
        return self._folders[folder]


def _age(artifact: Artifact) -> tuple[str, int]:
    """When it was made; of two within the same second, the later written."""
    return artifact.manifest.started, artifact.manifest_path.stat().st_mtime_ns
