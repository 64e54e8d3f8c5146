"""A store as one call or run sees it: every kind is listed once, and every manifest read once."""

from collections.abc import Sequence

from caploom.errors import StoreError
from caploom.storage.store import Artifact, Plan, Store


class StoreView:
    """Remembers what was read. Artifacts that other processes finish meanwhile are seen by `Store.make` alone.

    A `tolerant` view treats an artifact with a damaged manifest as missing, and names it in `damaged`.
    """

    def __init__(self, store: Store, *, tolerant: bool = False) -> None:
        self._store = store
        self._tolerant = tolerant
        self._refreshed: set[str] = set()
        self._read: dict[str, Artifact | None] = {}
        self._listed: dict[str, Sequence[str]] = {}
        self._indexes: dict[tuple[str, int, tuple[int, ...]], dict[tuple[str, ...], list[str]]] = {}
        self._problems: dict[str, str] = {}

    @property
    def damaged(self) -> tuple[str, ...]:
        """A sentence for each manifest that could not be read."""
        return tuple(self._problems.values())

    def problem(self, address: str) -> str | None:
        """Why the manifest at an address cannot be read; None when it can, or there is none."""
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
        kind = artifact.manifest.kind
        self._listed.pop(kind, None)
        self._indexes = {key: index for key, index in self._indexes.items() if key[0] != kind}

    def refresh(self, kind: str) -> None:
        """List the kind of a store at a URL, once."""
        if kind not in self._refreshed:
            self._refreshed.add(kind)
            self._store.refresh(kind)

    def addresses(self, kind: str, *name: str | None) -> list[str]:
        """The addresses of the finished artifacts of a kind and name; a None in the name matches any part."""
        asked = tuple(place for place, part in enumerate(name) if part is not None)
        if (kind, len(name), asked) not in self._indexes:
            self._indexes[kind, len(name), asked] = self._index(kind, len(name), asked)
        wanted = tuple(part for part in name if part is not None)
        return self._indexes[kind, len(name), asked].get(wanted, [])

    def artifacts(self, kind: str, *name: str | None) -> list[Artifact]:
        """Those artifacts, in the order of their addresses."""
        found = (self.read(address) for address in self.addresses(kind, *name))
        return [artifact for artifact in found if artifact is not None]

    def readable(self, kind: str, *name: str | None) -> list[Artifact]:
        """The same without those whose manifests are damaged, for whoever does not ask for one of them."""
        found = []
        for address in self.addresses(kind, *name):
            try:
                found.append(self.read(address))
            except StoreError:
                continue
        return [artifact for artifact in found if artifact is not None]

    def newest(self, kind: str, *name: str | None) -> Artifact | None:
        """The newest of them."""
        return max(self.artifacts(kind, *name), key=_age, default=None)

    def _index(self, kind: str, length: int, asked: tuple[int, ...]) -> dict[tuple[str, ...], list[str]]:
        """The addresses of a kind whose names have `length` parts, by the parts at the positions `asked`."""
        if kind not in self._listed:
            self.refresh(kind)
            self._listed[kind] = self._store.addresses(kind)
        found: dict[tuple[str, ...], list[str]] = {}
        for address in self._listed[kind]:
            name = address.split("/")[1:-1]
            if len(name) == length:
                found.setdefault(tuple(name[place] for place in asked), []).append(address)
        return found


def _age(artifact: Artifact) -> tuple[str, int]:
    """When it was made; of two within the same second, the one written later."""
    return artifact.manifest.started, artifact.manifest_path.stat().st_mtime_ns
