"""Measures a checkpoint on one evaluation set, whatever its kind."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caploom.evaluation.classification import classify
from caploom.evaluation.classification_images import set_classes
from caploom.evaluation.evaluation_set import evaluation_set
from caploom.evaluation.settings import ClassificationSet
from caploom.factory import Factory

if TYPE_CHECKING:
    import numpy as np

METRICS_FILE = "metrics.json"


def measure_set(
    factory: Factory,
    name: str,
    checkpoint: Path,
    out: Path,
    device: str,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The metrics of the checkpoint folder on the evaluation set `name`, as they are written to `metrics.json`.

    Into the existing folder `out` go `metrics.json` and, of images with captions, `ranks.parquet` (schema RANKS); of
    images with classes, `predictions.parquet` (schema PREDICTIONS) and `"kind": "classification"` among the metrics.
    What the set says of itself (`protocol`, `note`) is among them too. `progress` gets embeddings done and in all.

    Raises:
        EvaluationError: if the set cannot be used or measured.
        StoreError: if the checkpoint is not whole.
    """
    artifact, settings = evaluation_set(factory, name), factory.config.evaluation_sets[name]
    if isinstance(settings, ClassificationSet):
        encoder, images = _Encoder(checkpoint, device), artifact.file("images.parquet")
        classify(encoder, images, set_classes(artifact), settings.templates, out=out, progress=progress)
    else:
        from caploom.evaluation.evaluate import evaluate_checkpoint

        evaluate_checkpoint(checkpoint, artifact.file("pairs.parquet"), out=out, device=device, progress=progress)
    metrics: dict[str, Any] = json.loads((out / METRICS_FILE).read_text(encoding="utf-8"))
    said = {key: value for key, value in artifact.manifest.summary.items() if key in ("protocol", "note")}
    if said:
        metrics |= said
        (out / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


class _Encoder:
    """A CLIP checkpoint that embeds."""

    def __init__(self, checkpoint: Path, device: str) -> None:
        from caploom.training.clip_model import load_checkpoint, resolve_device

        self._model, self._device = load_checkpoint(checkpoint), resolve_device(device)

    def embed_images(
        self, paths: Sequence[str], image_ids: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> "np.ndarray":
        from caploom.evaluation.embeddings import embed_images

        return embed_images(self._model, paths, image_ids, device=self._device, progress=progress)

    def embed_texts(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> "np.ndarray":
        from caploom.evaluation.embeddings import embed_texts

        return embed_texts(self._model, texts, device=self._device, progress=progress)
