"""When artifacts were made, as their manifests say: `started` in whole seconds, and how long it took."""

from datetime import datetime

from caploom.storage.manifest import Manifest

CLOCK = 1.0
"""Seconds by which `started` may be too early."""


def started(manifest: Manifest) -> float:
    """Seconds since the epoch at which an artifact was begun."""
    return datetime.fromisoformat(manifest.started).timestamp()


def begun(manifest: Manifest) -> tuple[float, str]:
    """What sorts artifacts by when they were begun: in one second shards are in the order of their names."""
    return started(manifest), manifest.address


def ended(manifest: Manifest) -> float:
    """Seconds since the epoch at which it was finished, to the second."""
    return started(manifest) + manifest.seconds
