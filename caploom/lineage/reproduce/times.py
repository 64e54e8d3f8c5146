"""When artifacts were made, as their manifests say: `started` in whole seconds, and how long it took."""

from datetime import datetime

from caploom.store import Manifest


def started(manifest: Manifest) -> float:
    """Seconds since the epoch at which an artifact was begun."""
    return datetime.fromisoformat(manifest.started).timestamp()


def ended(manifest: Manifest) -> tuple[float, str]:
    """When it was finished, to sort by: of two that the clock does not tell apart, the lower address was first."""
    return started(manifest) + manifest.seconds, manifest.address
