"""What a store's folder holds, for the catalog: manifests found by listing folders, read in bulk, and judged."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from caploom.errors import StoreError
from caploom.lineage.artifact_names import kinds
from caploom.lineage.fingerprints import fingerprint
from caploom.store import MANIFEST, MANIFEST_VERSION, Manifest, Store

Stamp = tuple[int, int]
"""When a file was written, in nanoseconds, and its size: an unchanged stamp is an unchanged file."""


@dataclass(frozen=True)
class Damaged:
    """A manifest that cannot be relied on, and why."""

    address: str
    path: Path
    problem: str


def listed_manifests(store: Store) -> dict[str, Stamp]:
    """The address of every folder with a manifest, and that manifest's stamp. Nothing is opened."""
    root = os.fspath(store.root)
    found: dict[str, Stamp] = {}
    for kind in kinds(store):
        _list_below(os.path.join(root, kind), kind, found)  # noqa: PTH118
    return found


def _list_below(folder: str, address: str, found: dict[str, Stamp]) -> None:
    below: list[tuple[str, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == MANIFEST:
                    stat = entry.stat()
                    found[address] = (stat.st_mtime_ns, stat.st_size)
                    return
                if not entry.name.startswith(".") and entry.is_dir():
                    below.append((entry.path, f"{address}/{entry.name}"))
    except (FileNotFoundError, NotADirectoryError):
        return  # swept in the meantime
    for path, name in below:
        _list_below(path, name, found)


def read_manifests(store: Store, addresses: Iterator[str]) -> Iterator[tuple[str, Manifest | dict[str, Any] | Damaged]]:
    """Each manifest as its JSON value, or what is wrong with it. One that is gone by now is passed over."""
    for address in addresses:
        path = store.root / address / MANIFEST
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            yield address, Damaged(address, path, f"it cannot be read as UTF-8 text ({error})")
            continue
        yield address, _judged(address, path, text)


def _judged(address: str, path: Path, text: str) -> dict[str, Any] | Damaged:
    try:
        said = json.loads(text)
    except ValueError as error:
        return Damaged(address, path, f"it is not valid JSON ({error}); delete its folder and make the artifact again")
    if isinstance(said, dict) and isinstance(said.get("manifest_version"), int):
        version = said["manifest_version"]
        if version > MANIFEST_VERSION:
            problem = f"it is of version {version}, which a newer Caploom wrote (this one knows {MANIFEST_VERSION})"
            return Damaged(address, path, f"{problem}; update Caploom")
    try:
        Manifest.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its text"
        return Damaged(address, path, f"it is no manifest ({where}: {first['msg']}); make the artifact again")
    edited = edited_by_hand(said, address)
    if edited is not None:
        return Damaged(address, path, edited)
    manifest: dict[str, Any] = said
    return manifest


def edited_by_hand(manifest: Mapping[str, Any], address: str) -> str | None:
    """What shows that a manifest is not as Caploom wrote it, or None.

    The fingerprint is the hash of kind, code version, configuration and inputs, and the last part of the address.
    """
    parts = {name: manifest[name] for name in ("kind", "code_version", "configuration", "inputs")}
    again = "delete the folder and make the artifact again"
    if manifest["address"] != address:
        return f"it was moved or edited by hand: it says that it lies at {manifest['address']}; {again}"
    if fingerprint(parts) != manifest["fingerprint"] or address.rsplit("/", 1)[-1] != manifest["fingerprint"]:
        return f"it was edited by hand: its configuration and inputs do not give its fingerprint; {again}"
    return None


def missing_files(store: Store, manifest: Manifest) -> list[str]:
    """The files that a manifest names and that are gone, or of another size; raises `StoreError` outside the store."""
    folder = store.path(manifest.address)
    gone = []
    for name, record in manifest.files.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):
            raise StoreError(f"{folder / MANIFEST}: it names the file {name}, which leaves its folder.")
        if not path.is_file() or path.stat().st_size != record.size:
            gone.append(name)
    return gone
