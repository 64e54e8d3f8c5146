"""What all sides of the captioning benchmark are given, and the settings that Caploom's side runs with.

Imports neither torch nor transformers: some cases must not hold them in memory.
"""

from pathlib import Path

from caploom.captioning.backend import ImageRef
from caploom.captioning.identity import model_location
from caploom.captioning.settings import TransformersCaptioner
from caploom.shearing.settings import ShearStep
from caploom.storage.records import image_identity

BATCH_SIZE = 48
"""The released code's for LLaVA-1.5."""

PREFETCH = 2
PHOTOS = "photos"
SMALL_PHOTOS = "small-photos"


def image_refs(folder: Path) -> list[ImageRef]:
    """The pictures of a folder as the engine takes them, in file order."""
    return [ImageRef(image_identity(path.read_bytes()), str(path), path.name) for path in sorted(folder.glob("*.jpg"))]


def picture_paths(folder: Path) -> list[str]:
    """The pictures of a folder, in file order."""
    return [str(path) for path in sorted(folder.glob("*.jpg"))]


def captioner_settings(model: str, prompt: str, max_new_tokens: int) -> TransformersCaptioner:
    """Greedy captions that end where the shear `first_sentence` needs no more, as `stop_at: shear` has it."""
    settings = TransformersCaptioner.model_validate(
        {
            "model": model,
            "prompt": prompt,
            "decoding": {"max_new_tokens": max_new_tokens, "stop_at": "shear"},
            "batch_size": BATCH_SIZE,
            "prefetch": PREFETCH,
            "device": "cpu",
        }
    )
    return settings.stopping_at([[ShearStep.model_validate("first_sentence")]])


def model_folder(model: str) -> str:
    """What the peers' `from_pretrained` is given for the same model."""
    return model_location(captioner_settings(model, "-", 1))
