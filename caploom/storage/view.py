"""A store as one call or run looks at it: every kind is listed once, every manifest read once."""

from collections.abc import Iterator
from pathlib import Path

from caploom.errors import StoreError
from caploom.storage.manifest import MANIFEST
from caploom.storage.store import Artifact, Plan, Store


class StoreView:
    """Remembers what was read. What another process finishes meanwhile is not seen, but by `Store.make`.

    A `tolerant` view takes an artifact whose manifest is damaged for missing and names it in `damaged`.
    """

    def __init__(self, store: Store, *, tolerant: bool = False) -> None:
        self._store = store
        self._tolerant = tolerant
        self._refreshed: set[str] = set()
        self._read: dict[str, Artifact | None] = {}
        self._folders: dict[Path, list[Path]] = {}
        self._problems: dict[str, str] = {}

    @property
    def damaged(self) -> tuple[str, ...]:
        """A sentence for each manifest that could not be read."""
        return tuple(self._problems.values())

    def problem(self, address: str) -> str | None:
        """Why the manifest at an address cannot be read; None where it can, or there is none."""
        return self._problems.get(address)

    def find(self, plan: Plan) -> Artifact | None:
        """The finished artifact of a plan, or None."""
        return self.read(plan.address)

    def read(self, address: str) -> Artifact | None:
        """The finished artifact at an address, or None; raises `StoreError` when its manifest is damaged."""
        if address not in self._read:
            self.refresh(address.partition("/")[0])
            try:
                self._read[address] = self._store.read_listed(address)
            except StoreError as error:
                if not self._tolerant:
                    raise
                self._problems[address] = str(error)
                self._read[address] = None
        return self._read[address]

    def keep(self, artifact: Artifact) -> None:
        """Remember what was finished just now."""
        self._read[artifact.manifest.address] = artifact
        self._folders.clear()

    def refresh(self, kind: str) -> None:
        """Have a store at a URL list the kind, once."""
        if kind not in self._refreshed:
            self._refreshed.add(kind)
            self._store.refresh(kind)

    def addresses(self, *parts: str | None) -> Iterator[str]:
        """The addresses of the finished artifacts of a kind and name, of which None stands for any part."""
        if parts[0] is not None:
            self.refresh(parts[0])
        folders = [self._store.root]
        for part in (*parts, None):  # the last is the fingerprint
            folders = [
                below
                for folder in folders
                for below in (self._below(folder) if part is None else [folder / part])
                if part is None or below.is_dir()
            ]
        return (folder.relative_to(self._store.root).as_posix() for folder in folders if (folder / MANIFEST).is_file())

    def artifacts(self, *parts: str | None) -> list[Artifact]:
        """Those artifacts, in the order of their addresses."""
        found = (self.read(address) for address in self.addresses(*parts))
        return [artifact for artifact in found if artifact is not None]

    def newest(self, *parts: str | None) -> Artifact | None:
        """The newest of them."""
        return max(self.artifacts(*parts), key=_age, default=None)

    def _below(self, folder: Path) -> list[Path]:
        if folder not in self._folders:
            below = folder.iterdir() if folder.is_dir() else iter(())
            self._folders[folder] = sorted(each for each in below if each.is_dir() and not each.name.startswith("."))
        return self._folders[folder]


def _age(artifact: Artifact) -> tuple[str, int]:
    """When it was made; of two within the same second, the later written."""
    return artifact.manifest.started, artifact.manifest_path.stat().st_mtime_ns
