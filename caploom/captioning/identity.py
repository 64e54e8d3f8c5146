"""What makes a captioner the same captioner: the fingerprint that its captions are kept under."""

from functools import lru_cache
from pathlib import Path

from caploom.captioning.settings import DEMO_PREFIX, CaptionerSettings
from caploom.lineage.fingerprints import fingerprint, model_folder_fingerprint

BACKEND_VERSION = "1"
"""Part of every fingerprint: raise it when the backends' code makes another text of the same settings."""

_DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "captioners"


def model_location(settings: CaptionerSettings) -> str:
    """What `from_pretrained` is given: the folder of a local or demo model, or the hub's id."""
    if settings.model.startswith(DEMO_PREFIX):
        return str(_DEMO_FOLDER / settings.model.removeprefix(DEMO_PREFIX))
    return settings.model


def captioner_fingerprint(settings: CaptionerSettings) -> str:
    """Hash of model, revision, prompt, decoding and seed.

    Of a local model the content counts and not the folder's name: moved weights are the same captioner, retrained ones
    another.
    """
    folder = Path(model_location(settings))
    identity = settings.fingerprinted()
    if folder.is_dir():
        identity["model"] = f"content:{_folder_content(folder, _signature(folder))}"
    return fingerprint({**identity, "backend_version": BACKEND_VERSION})


def _signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    stats = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)


@lru_cache(maxsize=64)
def _folder_content(folder: Path, signature: tuple[tuple[str, int, int], ...]) -> str:
    # The signature is only the cache's key: an unchanged folder is not read again in one process.
    return model_folder_fingerprint(folder)
