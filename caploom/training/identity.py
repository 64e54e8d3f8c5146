"""The identity of a trainer, under which its checkpoints are stored."""

from pathlib import Path
from typing import Any

from caploom.common.hashing import model_content
from caploom.training.settings import TrainingSettings

_ARCHITECTURES = Path(__file__).parent / "architectures"


def trainer_identity(trainer: TrainingSettings) -> dict[str, Any]:
    """All that decides a trainer's results; for an architecture or weights in a file, the content and not the path."""
    identity = trainer.fingerprinted()
    own = _ARCHITECTURES / f"{identity['model']}.json"
    identity["model"] = model_content(own) if own.is_file() else _identity(identity["model"])
    if isinstance(identity["pretrained"], str):
        identity["pretrained"] = _identity(identity["pretrained"])
    return identity


def _identity(model: str) -> str:
    path = Path(model)
    return model_content(path) if path.is_absolute() and path.exists() else model
