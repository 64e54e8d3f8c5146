"""Checks that a manifest can be trusted: its address and fingerprint are right, and its files exist."""

from datetime import datetime
from pathlib import Path

from caploom.errors import StoreError
from caploom.storage.manifest import MANIFEST, Manifest, parse_manifest
from caploom.storage.store import Plan


def checked_manifest(root: Path, address: str) -> Manifest:
    """The manifest of an address below a store's root; raises `StoreError` for one that must not be trusted.

    Manifests that `Store.read` refuses are refused with the same message; so are those whose kind, code version,
    configuration or inputs were edited by hand, which their fingerprint shows.
    """
    path = root / address / MANIFEST
    try:
        manifest = parse_manifest(path.read_bytes(), path)
    except OSError as error:
        raise StoreError(f"{path}: it cannot be read ({error.strerror}).") from None
    problem = _problem(manifest, address)
    if problem is not None:
        raise StoreError(f"{path}: {problem}; delete the folder and rebuild the artifact.")
    return manifest


def _problem(manifest: Manifest, address: str) -> str | None:
    if manifest.address != address:
        return f'it was edited by hand or moved here: it says that its address is "{manifest.address}"'
    kind, *name, fingerprint = address.split("/")
    plan = Plan(
        kind=manifest.kind,
        name=tuple(name),
        code_version=manifest.code_version,
        configuration=manifest.configuration,
        inputs=tuple(manifest.inputs),
    )
    if manifest.kind != kind:
        return f'it was edited by hand: it says that its kind is "{manifest.kind}"'
    if manifest.fingerprint != fingerprint:
        return f'it was edited by hand: it says that its fingerprint is "{manifest.fingerprint}"'
    if plan.fingerprint != fingerprint:
        return (
            "it was edited by hand: its configuration, code version and inputs have the fingerprint "
            f"{plan.fingerprint}, not {fingerprint}"
        )
    try:
        started = datetime.fromisoformat(manifest.started)
    except ValueError:
        started = None
    if started is None or started.tzinfo is None:
        return f'it was edited by hand: "{manifest.started}" is not a time with its zone'
    return None
