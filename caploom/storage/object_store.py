"""A store in object storage: the bucket is the truth, and a local mirror holds drafts, locks and copies of it.

An artifact exists when its manifest does: the files are uploaded first and the manifest last, unless there is one. A
file's key contains its hash, so that two writers of one plan never overwrite each other's files. See ADR 0014.
"""

import fnmatch
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from caploom.common.hashing import file_sha256
from caploom.errors import StoreError
from caploom.storage.bucket import Bucket, StoredObject, at_once
from caploom.storage.manifest import MANIFEST, Manifest, parse_manifest
from caploom.storage.store import Artifact, Store
from caploom.storage.stored_tables import ROOT, StoredTables
from caploom.storage.writing import draft_beside, full_disk_explained, write_atomically

if TYPE_CHECKING:
    import duckdb

_CLAIM = "claim"
_CLAIM_COUNTS = 60 * 10**9  # nanoseconds: its artifact is published right after it
CHANGING = frozenset({"retries.json"})
"""Shared files that change; all others are written once."""
_PLAIN_KEYS = frozenset({"images.pack"})
"""Files whose URL other tables name before their hash is known; every writer of one plan writes the same."""


def default_mirror(url: str) -> Path:
    """The folder of a store's mirror: in CAPLOOM_MIRROR, else in the user's cache folder."""
    named = os.environ.get("CAPLOOM_MIRROR")
    cache = os.environ.get("XDG_CACHE_HOME")
    base = Path(named) if named else (Path(cache) if cache else Path.home() / ".cache") / "caploom"
    return base.absolute() / hashlib.sha256(url.encode()).hexdigest()[:16]


def object_key(address: str, name: str, manifest: Manifest) -> str:
    """The key of an artifact's file."""
    return f"{address}/{name}" if name in _PLAIN_KEYS else f"{address}/{manifest.files[name].sha256[:16]}/{name}"


class ObjectArtifact(Artifact):
    """An artifact in object storage: its files are copied into the mirror on demand."""

    def __init__(self, store: "ObjectStore", folder: Path, manifest: Manifest, *, reused: bool) -> None:
        super().__init__(folder, manifest, reused=reused)
        self._store = store

    @property
    def folder(self) -> Path:
        """The folder in the mirror, with every file that the manifest names."""
        self._store.fetch((self.manifest.address, name) for name in self.manifest.files)
        return Path(self._folder)

    def file(self, name: str) -> Path:
        """The path of the mirror's copy of one of its files; raises `StoreError` when it is gone or damaged."""
        return self._store.fetched(self.manifest, name)


class ObjectStore(Store):
    """The store at a URL; `root` is its mirror."""

    def __init__(self, url: str, mirror: Path, *, run_id: str | None = None) -> None:
        super().__init__(mirror, run_id=run_id)
        self.bucket = Bucket(url)
        self._listed_until: dict[tuple[str, ...], float] = {}

    @classmethod
    def at(cls, url: str, *, run_id: str | None = None) -> Self:
        """The store at a URL, with its mirror made; raises `StoreError` when either cannot be used."""
        mirror = default_mirror(url.rstrip("/"))
        try:
            mirror.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{mirror}: the mirror of {url} cannot be made ({error.strerror}); name another folder in "
                "CAPLOOM_MIRROR."
            ) from None
        store = cls(url, mirror, run_id=run_id)
        store.bucket.check()
        return store

    def url_of(self, address: str, name: str) -> str:
        """The URL of a file whose key does not depend on its content."""
        if name not in _PLAIN_KEYS:
            raise ValueError(f"{name}: its key contains its hash, so its URL is unknown before it is written.")
        return self.bucket.url_of(f"{address}/{name}")

    def read(self, address: str) -> Artifact | None:
        """The finished artifact at an address, or None; raises `StoreError` when its manifest is damaged."""
        folder = self.path(address)
        text = self.bucket.read(f"{address}/{MANIFEST}")
        if text is None:
            if (folder / MANIFEST).exists():
                shutil.rmtree(folder, ignore_errors=True)
            return None
        manifest = parse_manifest(text, Path(self.bucket.url_of(f"{address}/{MANIFEST}")))
        self._keep(address, text)
        return ObjectArtifact(self, folder, manifest, reused=True)

    def read_listed(self, address: str) -> Artifact | None:
        """The same for a kind that was refreshed before: only the mirror is read."""
        found = super().read(address)
        return ObjectArtifact(self, found.manifest_path.parent, found.manifest, reused=True) if found else None

    def list(self, *parts: str) -> list[Artifact]:
        """Every finished artifact below a kind or name, in the order of their addresses."""
        self.refresh(*parts)
        return super().list(*parts)

    def refresh(self, *parts: str) -> None:
        """Copy the bucket's manifests below a kind or a name into the mirror; only new ones are fetched.

        The few shared files that change (`CHANGING`) are always fetched again.
        """
        below = "/".join(parts)
        folder = self.path(below)
        known = {}
        # Before the bucket is listed, so that artifacts published meanwhile on this machine don't seem deleted.
        for path in folder.rglob(MANIFEST):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                with suppress(FileNotFoundError):
                    known[path.relative_to(self.root.resolve()).as_posix()] = path.stat()
        listed = self.bucket.list(below)
        objects = {key: each for key, each in listed.items() if key.rpartition("/")[2] == MANIFEST}
        changing = [key for key in listed if key.rpartition("/")[2] in CHANGING]
        for key in known.keys() - objects.keys():
            shutil.rmtree(self.path(key).parent, ignore_errors=True)
        wanted = [key for key, each in objects.items() if key not in known or not _is_copy(known[key], each)]
        at_once(self._mirror_manifest, [(key, objects[key]) for key in wanted])
        at_once(self._mirror_shared, [(key,) for key in changing])

    def refresh_throttled(self, *parts: str) -> None:
        """See `Store`; artifacts that this store finishes itself are seen at once."""
        until = self._listed_until.get(parts, 0.0)
        began = time.monotonic()
        if began >= until:
            self.refresh(*parts)
            ended = time.monotonic()
            self._listed_until[parts] = ended + 9 * (ended - began)

    def folders(self, address: str) -> Sequence[str]:
        """The names of the folders right below an address, in the bucket or on this machine."""
        return sorted({*self.bucket.folders(address), *super().folders(address)})

    def fetch(self, files: Iterable[tuple[str, str]]) -> None:
        """Copy these files (address and name) into the mirror, several at a time."""
        manifests: dict[str, Manifest] = {}
        missing = []
        for address, name in files:
            if not (self.path(address) / name).is_file():
                if address not in manifests:
                    manifests[address] = self._mirrored(address)
                missing.append((manifests[address], name))
        at_once(self.fetched, missing)

    @property
    def tables_root(self) -> str:
        """See `StoredTables`."""
        return ROOT

    def open_to(self, connection: "duckdb.DuckDBPyConnection") -> None:
        """Let a connection read the tables directly from the bucket, unless the mirror has them."""
        connection.register_filesystem(StoredTables(self.root, self.open_object))

    def open_object(self, manifest: Manifest, name: str, read_ahead: int) -> Any:
        """A file of an artifact, opened in the bucket for reading in ranges."""
        return self.bucket.open(object_key(manifest.address, name, manifest), read_ahead)

    def has_file(self, address: str, name: str) -> bool:
        """Whether the mirror's copy of an artifact's manifest names the file."""
        with suppress(FileNotFoundError):
            return name in self._mirrored(address).files
        return False

    def file(self, address: str, name: str) -> Path:
        """The path of an artifact's file in the mirror, fetched if necessary. It may not exist."""
        path = self.path(address) / name
        with suppress(FileNotFoundError):
            if not path.is_file() and name in self._mirrored(address).files:
                self.fetch([(address, name)])
        return path

    def fetched(self, manifest: Manifest, name: str) -> Path:
        """The mirror's copy of a file that a manifest names; raises `StoreError` when it is gone or damaged."""
        folder = self.path(manifest.address)
        path = folder / name
        if name not in manifest.files or ".." in Path(name).parts or Path(name).is_absolute():
            raise StoreError(f"{self.bucket.url_of(manifest.address)}: its manifest does not name the file {name}.")
        if path.is_file():
            return path
        key = object_key(manifest.address, name, manifest)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = draft_beside(path)
        again = f"delete {self.bucket.url_of(manifest.address)} and rebuild the artifact."
        try:
            with full_disk_explained(self.root):
                self.bucket.download(key, temporary)
            if file_sha256(temporary) != manifest.files[name].sha256:
                raise StoreError(f"{self.bucket.url_of(key)}: its SHA-256 is not the one in its manifest; {again}")
            temporary.replace(path)
        except FileNotFoundError:
            raise StoreError(
                f"{self.bucket.url_of(key)}: the manifest names this file but it is gone; {again}"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def claim(self, address: str, fingerprint: str) -> bool:
        """See `Store`; a claim lasts a minute, and forever once its artifact exists."""
        key = f"{address}/{_CLAIM}"
        if self.bucket.create(key, fingerprint.encode()):
            return True
        holder = (self.bucket.read(key) or b"").decode()
        if self.bucket.read(f"{address}/{holder}/{MANIFEST}") is not None:
            return False
        claim = self.bucket.list(address).get(key)
        if claim is None or time.time_ns() - claim.written < _CLAIM_COUNTS:
            return False
        self.bucket.write(key, fingerprint.encode())
        return True

    def put_shared(self, path: Path, data: bytes) -> None:
        """Store a small file that belongs to no artifact, for every machine."""
        self.bucket.write(self._key(path), data)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)

    def pull_shared(self, pattern: str) -> None:
        """Update the mirror's shared files of a pattern (below the root, `*` within a part) to the bucket's."""
        root = self.root.resolve()
        # Listed before the bucket, so that files shared meanwhile on this machine don't seem deleted.
        here = set(root.glob(pattern))
        fixed = pattern.partition("*")[0].rpartition("/")[0]
        keys = [key for key in self.bucket.list(fixed) if _matches(key, pattern)]
        keys += [pattern] if "*" not in pattern and not keys else []
        there = {root / key for key in keys}
        for path in here - there:
            path.unlink(missing_ok=True)

        # Parts are written once; a file whose name has no `*` may change.
        wanted = [path for path in there if "*" not in pattern or path not in here]
        at_once(self._mirror_shared, [(self._key(path),) for path in wanted])

    def delete_shared(self, folder: Path) -> None:
        """Delete the shared files below a folder."""
        for key in self.bucket.list(self._key(folder)):
            self.bucket.delete(key)
        super().delete_shared(folder)

    def _mirrored(self, address: str) -> Manifest:
        path = self.path(address) / MANIFEST
        return parse_manifest(path.read_bytes(), path)

    def _key(self, path: Path) -> str:
        return path.resolve().relative_to(self.root.resolve()).as_posix()

    def _keep(self, address: str, text: bytes) -> None:
        """Copy a manifest into the mirror; when it differs from the copy, the mirror's files are outdated too."""
        copy = self.path(address) / MANIFEST
        try:
            if copy.read_bytes() == text:
                return
            shutil.rmtree(copy.parent, ignore_errors=True)
        except FileNotFoundError:
            pass
        with full_disk_explained(self.root):
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, text)

    def _mirror_shared(self, key: str) -> None:
        path, data = self.path(key), self.bucket.read(key)
        if data is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)

    def _mirror_manifest(self, key: str, stored: StoredObject) -> None:
        text = self.bucket.read(key)
        if text is None:
            return
        address = key.rpartition("/")[0]
        self._keep(address, text)
        if stored.written:
            os.utime(self.path(address) / MANIFEST, ns=(stored.written, stored.written))

    def _publish(self, folder: Path, target: Path) -> None:
        text = (folder / MANIFEST).read_bytes()
        manifest = parse_manifest(text, folder / MANIFEST)
        address = manifest.address
        if self.bucket.read(f"{address}/{MANIFEST}") is not None:
            return  # another machine finished the same plan first: its artifact stays
        at_once(self.bucket.upload, [(folder / name, object_key(address, name, manifest)) for name in manifest.files])
        if not self.bucket.create(f"{address}/{MANIFEST}", text):
            return
        if (target / MANIFEST).exists():
            shutil.rmtree(target, ignore_errors=True)  # a copy of what has been deleted in the bucket
        super()._publish(folder, target)


def _is_copy(copy: os.stat_result, stored: StoredObject) -> bool:
    # Where the storage reports no time, an artifact is assumed unchanged: its address is its fingerprint.
    return copy.st_size == stored.size and stored.written in (0, copy.st_mtime_ns)


def _matches(key: str, pattern: str) -> bool:
    parts, wanted = key.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
