"""What people call artifacts, and how one is found by such a name."""

import json
import os
import re
from collections.abc import Container, Sequence
from pathlib import Path

from caploom.common.settings import nearest
from caploom.errors import StoreError
from caploom.stages.registry import STAGES, load_stage
from caploom.storage.manifest import MANIFEST, Manifest
from caploom.storage.store import Artifact, Store

NOT_KINDS = frozenset({"dagster", "inbox", "pictures", "training_state", "tries"})
"""Folders of a store that hold no artifacts."""

_SHOWN = re.compile(r"^(?P<asset>\S+)\s*\[(?P<partition>[^\]]+)\]$")
_FINGERPRINT = re.compile(r"^[0-9a-f]{16}$")
_LEAST_DIGITS = 6


def artifact_label(manifest: Manifest) -> str:
    """What people and the UI call an artifact: `captions/llava [shard-00000]`, `checkpoint [four-captioners]`."""
    return label_of(manifest.address)


def label_of(address: str) -> str:
    """The same of an address alone."""
    kind, *name, _ = address.split("/")
    # Two shears of a captioner's shard differ in the shear's fingerprint alone: what an axis is called by is shown.
    _, *rest = _plain((kind, *name), but=load_stage(kind).axes if kind in STAGES else ())
    if not rest:
        return kind
    return f"{'/'.join([kind, *rest[:-1]])} [{rest[-1]}]"


def find_artifact(store: Store, text: str) -> Artifact:
    """The artifact that a text names; of several versions the newest.

    Args:
        store: where to look.
        text: an address; an address without its fingerprint (`training_set/four-captioners`); the UI's way of saying it
            (`captions/llava [shard-00000]`); a path to the artifact's folder or manifest; or the beginning of a
            fingerprint that no other artifact's has.

    Raises:
        StoreError: if there is none, or a fingerprint's beginning could mean several; names the nearest.
    """
    wanted = text.strip().rstrip("/")
    of_path = _address_of_path(store, wanted)
    if of_path is not None:
        wanted = of_path
    if shown := _SHOWN.match(wanted):
        wanted = f"{shown['asset']}/{shown['partition']}"
    exact = _read_exact(store, wanted)
    if exact is not None:
        return exact
    kind = wanted.split("/")[0]
    if _is_fingerprint(wanted):
        return _by_fingerprint(store, wanted)
    found = artifacts_below(store, kind) if not kind.startswith(".") else []  # of no kind, and perhaps outside
    names = ((address, tuple(address.split("/")[:-1])) for address in found)
    versions = [address for address, name in names if wanted in ("/".join(_plain(name)), "/".join(name))]
    if versions:
        return _newest(store, versions)
    raise StoreError(_unknown(store, text, found))


def artifacts_below(store: Store, *parts: str) -> Sequence[str]:
    """The addresses of the artifacts below a kind or a name; nothing is read of them."""
    store.refresh(*parts)
    return store.addresses(*parts)


def kinds(store: Store) -> list[str]:
    """The kinds of artifacts of which there are some."""
    store.refresh()
    try:
        entries = sorted(os.scandir(store.root), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    return [
        each.name for each in entries if each.is_dir() and each.name not in NOT_KINDS and not each.name.startswith(".")
    ]


def _plain(parts: tuple[str, ...], but: Container[str] = ()) -> tuple[str, ...]:
    """A kind and name without its fingerprints, which nobody writes, but for those that are called so."""
    kind, *name = parts
    declared = load_stage(kind).parts if kind in STAGES else ()
    if len(declared) != len(name):  # of another Caploom
        return parts
    kept = (
        value
        for value, part in zip(name, declared, strict=True)
        if not part.startswith("#") or part[1:] in but or not _FINGERPRINT.match(value)
    )
    return (kind, *kept)


def _address_of_path(store: Store, text: str) -> str | None:
    path = Path(text)
    if path.name == MANIFEST:
        path = path.parent
    if not (path.is_absolute() or path.exists()):
        return None
    try:
        return path.resolve().relative_to(store.root.resolve()).as_posix()
    except ValueError:
        return None


def _read_exact(store: Store, address: str) -> Artifact | None:
    last = address.rsplit("/", 1)[-1]
    return store.read(address) if _FINGERPRINT.match(last) and "/" in address else None


def _is_fingerprint(text: str) -> bool:
    return len(text) >= _LEAST_DIGITS and re.fullmatch(r"[0-9a-f]{6,16}", text) is not None


def _by_fingerprint(store: Store, beginning: str) -> Artifact:
    addresses = (address for kind in kinds(store) for address in artifacts_below(store, kind))
    found = [address for address in addresses if address.rpartition("/")[2].startswith(beginning)]
    if len(found) > 1:
        some = ", ".join(found[:3])
        raise StoreError(f'"{beginning}" begins the fingerprints of {len(found)} artifacts ({some}): write more of it.')
    artifact = store.read(found[0]) if found else None
    if artifact is None:
        raise StoreError(f'No artifact of {store.root} has a fingerprint that begins with "{beginning}".')
    return artifact


def _newest(store: Store, versions: Sequence[str]) -> Artifact:
    def started(address: str) -> tuple[str, int]:
        path = store.root / address / MANIFEST
        try:
            # Within a second, the file that was written last.
            return str(json.loads(path.read_text(encoding="utf-8"))["started"]), path.stat().st_mtime_ns
        except (OSError, ValueError, KeyError, TypeError):
            return "", 0  # a damaged one is read only if there is no other, and then says what is wrong with it

    newest = max(versions, key=started)
    artifact = store.read(newest)
    if artifact is None:
        raise StoreError(f"{newest}: it was there a moment ago and is gone.")
    return artifact


def _unknown(store: Store, text: str, found: Sequence[str]) -> str:
    if not found:
        known = kinds(store)
        return f'There is no artifact "{text}" in {store.root}; it has {", ".join(known) or "none yet"}' + (
            f"{nearest(text.split('/')[0].split(' ')[0], known)}."
        )
    names = list(dict.fromkeys(map(label_of, found)))
    hint = nearest(text, names) or nearest(text, ["/".join(_plain(tuple(each.split("/")[:-1]))) for each in found])
    some = ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
    return f'There is no artifact "{text}" in {store.root}; there are {some}{hint}.'
