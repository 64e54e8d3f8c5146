"""The identity of a scorer, under which its scores are stored."""

from pathlib import Path
from typing import Any

from caploom.common.hashing import model_content

CODE_VERSION = "1"
_ARCHITECTURES = Path(__file__).parents[1] / "training" / "architectures"


def scorer_identity(model_name: str, pretrained: str | None) -> dict[str, Any]:
    """All that decides a score: a model and its weights; for files, the content and not the path."""
    model, own = Path(model_name), _ARCHITECTURES / f"{model_name}.json"
    if model.is_absolute() and model.is_dir():  # a checkpoint: only the files that are loaded
        files = [_content(model / name) for name in ("open_clip_config.json", "model.safetensors")]
        return {"checkpoint": files, "code_version": CODE_VERSION}
    architecture = next((_content(file) for file in (own, model) if file.is_file()), model_name)
    weights = pretrained or ""
    return {
        "model": architecture,
        "pretrained": _content(Path(weights)) if Path(weights).is_absolute() else weights,
        "code_version": CODE_VERSION,
    }


def _content(file: Path) -> str:
    """The hash of a file's content; a missing one is reported on reading."""
    return model_content(file) if file.is_file() else f"missing:{file.name}"
