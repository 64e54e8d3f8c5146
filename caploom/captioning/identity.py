"""The identity of a captioner: the fingerprint under which its captions are stored."""

from pathlib import Path

from caploom.captioning.settings import DEMO_PREFIX, CaptionerSettings, ImportedCaptions, TransformersCaptioner
from caploom.common.hashing import fingerprint, model_content

BACKEND_VERSION = "2"
"""Part of every fingerprint: raise it when the backends' code changes the texts of unchanged settings."""

_DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "captioners"


def model_location(settings: TransformersCaptioner) -> str:
    """The argument of `from_pretrained`: the folder of a local or demo model, or the hub's id."""
    if settings.model.startswith(DEMO_PREFIX):
        return str(_DEMO_FOLDER / settings.model.removeprefix(DEMO_PREFIX))
    return settings.model


def captioner_fingerprint(settings: CaptionerSettings) -> str:
    """Hash of model, revision, prompt, decoding and seed.

    For a local model or a file of captions the content counts and not the name: moved weights are the same captioner,
    retrained ones another.

    Example:
        >>> settings = factory.config.captioners["colours"]
        >>> captioner_fingerprint(settings) == captioner_fingerprint(settings.model_copy(update={"batch_size": 99}))
        True
        >>> captioner_fingerprint(settings) == captioner_fingerprint(settings.model_copy(update={"prompt": "<image>"}))
        False
    """
    identity = settings.fingerprinted()
    if isinstance(settings, TransformersCaptioner):
        folder = Path(model_location(settings))
        if folder.is_dir():
            identity["model"] = model_content(folder)
    if isinstance(settings, ImportedCaptions) and settings.captions.is_file():
        identity["captions"] = model_content(settings.captions)
    return fingerprint({**identity, "backend_version": BACKEND_VERSION})
