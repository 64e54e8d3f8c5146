"""What makes a captioner the same captioner: the fingerprint that its captions are kept under."""

from functools import lru_cache
from pathlib import Path

from caploom.captioning.settings import DEMO_PREFIX, CaptionerSettings, ImportedCaptions, TransformersCaptioner
from caploom.lineage.fingerprints import file_sha256, fingerprint, model_folder_fingerprint

BACKEND_VERSION = "2"
"""Part of every fingerprint: raise it when the backends' code makes another text of the same settings."""

_DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "captioners"


def model_location(settings: TransformersCaptioner) -> str:
    """What `from_pretrained` is given: the folder of a local or demo model, or the hub's id."""
    if settings.model.startswith(DEMO_PREFIX):
        return str(_DEMO_FOLDER / settings.model.removeprefix(DEMO_PREFIX))
    return settings.model


def captioner_fingerprint(settings: CaptionerSettings) -> str:
    """Hash of model, revision, prompt, decoding and seed.

    Of a local model, and of a file of captions, the content counts and not the name: moved weights are the same
    captioner, retrained ones another.
    """
    identity = settings.fingerprinted()
    if isinstance(settings, TransformersCaptioner):
        folder = Path(model_location(settings))
        if folder.is_dir():
            identity["model"] = f"content:{_folder_content(folder, _signature(folder))}"
    if isinstance(settings, ImportedCaptions) and settings.captions.is_file():
        stat = settings.captions.stat()
        identity["captions"] = f"content:{_file_content(settings.captions, (stat.st_size, stat.st_mtime_ns))}"
    return fingerprint({**identity, "backend_version": BACKEND_VERSION})


def _signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    stats = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)


@lru_cache(maxsize=64)
def _folder_content(folder: Path, signature: tuple[tuple[str, int, int], ...]) -> str:
    # The signature is only the cache's key: an unchanged folder is not read again in one process.
    return model_folder_fingerprint(folder)


@lru_cache(maxsize=64)
def _file_content(path: Path, signature: tuple[int, int]) -> str:
    return file_sha256(path)
