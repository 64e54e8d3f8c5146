"""The tables of a store at a URL as a file system for DuckDB, with the store's own layout.

Tables in the mirror are read there; others are read in the bucket, in the ranges that a query needs.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import translate
from pathlib import Path
from typing import Any, cast

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from caploom.storage.manifest import MANIFEST, Manifest, parse_manifest

PROTOCOL = "caploom"
ROOT = f"{PROTOCOL}://store"
"""The prefix of all tables' names."""

_READ_AHEAD = 1 << 20  # bytes: a table's footer, or most of a column of it


class StoredTables(AbstractFileSystem):  # type: ignore[misc]
    """The finished artifacts' files, for reading; the mirror's manifests list them."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, mirror: Path, open_object: Callable[[Manifest, str, int], Any]) -> None:
        super().__init__()
        self._open_object = open_object
        self._root = mirror.resolve()
        self._named: dict[Path, dict[str, Any]] = {}

    def glob(self, path: str, **_: Any) -> list[str]:
        """The files that match a pattern, whose `*` and `[...]` stay within a part of the path."""
        pattern = _below(path).split("/")
        parts = [re.compile(translate(part)) for part in pattern]
        found = []
        for address in self._artifacts(parts):
            for name in self._files(address):
                whole = [*address.split("/"), *name.split("/")]
                if len(whole) == len(parts) and all(one.match(part) for one, part in zip(parts, whole, strict=True)):
                    found.append(f"{ROOT}/{address}/{name}")
        return sorted(found)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """The size of a file as its manifest has it."""
        address, name = self._split(path)
        return {"name": path, "size": self._files(address)[name]["size"], "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether a manifest names the file."""
        try:
            self._split(path)
        except FileNotFoundError:
            return False
        return True

    def modified(self, path: str) -> datetime:
        """When the artifact of a file was finished, according to the mirror."""
        address, _ = self._split(path)
        return datetime.fromtimestamp((self._root / address / MANIFEST).stat().st_mtime, UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode != "rb":
            raise PermissionError(f"{path}: the store's tables are read-only here.")
        address, name = self._split(path)
        copy = self._root / address / name
        if copy.is_file():
            return LocalFileSystem().open(str(copy), "rb")
        manifest = self._root / address / MANIFEST
        return self._open_object(parse_manifest(manifest.read_bytes(), manifest), name, _READ_AHEAD)

    def _artifacts(self, parts: list[re.Pattern[str]]) -> Iterator[str]:
        """The addresses below the kinds that the first part of a pattern allows."""
        for kind in sorted(self._root.iterdir()):
            if parts[0].match(kind.name) and kind.is_dir():
                for manifest in kind.rglob(MANIFEST):
                    address = manifest.parent.relative_to(self._root).as_posix()
                    if not any(part.startswith(".") for part in address.split("/")):
                        yield address

    def _split(self, path: str) -> tuple[str, str]:
        """The address of the artifact that a file belongs to, and the file's name in it."""
        parts = _below(path).split("/")
        for end in range(len(parts) - 1, 0, -1):
            address, name = "/".join(parts[:end]), "/".join(parts[end:])
            if ".." not in parts and (self._root / address / MANIFEST).is_file():
                if name in self._files(address):
                    return address, name
                break
        raise FileNotFoundError(path)

    def _files(self, address: str) -> dict[str, Any]:
        manifest = self._root / address / MANIFEST
        if manifest not in self._named:
            try:
                parsed = json.loads(manifest.read_bytes())
                self._named[manifest] = cast("dict[str, Any]", parsed["files"])
            except (ValueError, KeyError, TypeError, FileNotFoundError):
                self._named[manifest] = {}  # the reader of a damaged manifest reports it
        return self._named[manifest]


def _below(path: str) -> str:
    return path.removeprefix(f"{PROTOCOL}://").removeprefix("store").strip("/")
