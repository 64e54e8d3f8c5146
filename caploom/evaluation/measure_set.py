"""Measures a checkpoint on an evaluation set of any kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from caploom.evaluation.classification import classify
from caploom.evaluation.classification_images import set_classes
from caploom.evaluation.encoders import Encoder
from caploom.evaluation.evaluate import evaluate_encoder
from caploom.evaluation.settings import ClassificationSet, EvaluationSet
from caploom.images.moves import STAYED, Moves
from caploom.storage.store import Artifact

RETRIEVAL, CLASSIFICATION = "retrieval", "classification"
"""Kinds of measurement."""


def measure_set(
    name: str,
    settings: EvaluationSet,
    artifact: Artifact,
    encoder: Encoder,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
    moves: Moves = STAYED,
) -> list[dict[str, Any]]:
    """Measure a checkpoint's encoders on an evaluation set (its artifact): one measurement per scoring.

    A measurement has `kind` ("retrieval" or "classification"), `scoring`, the set's own remarks (`protocol`,
    `note`) and the figures of `RetrievalMetrics` or `ClassificationMetrics`. Into the existing folder `out` go
    `metrics.json` and, for images with captions, `ranks.parquet` (schema RANKS); for images with classes,
    `predictions.parquet` (schema PREDICTIONS). `progress` gets embeddings done and in total; `moves` says
    where the images are now.

    Raises:
        EvaluationError: if the set is unusable or cannot be measured.
    """
    if isinstance(settings, ClassificationSet):
        images, classes = artifact.file("images.parquet"), set_classes(artifact)
        classified = classify(encoder, images, classes, settings.templates, out=out, progress=progress, moves=moves)
        figures = [{**classified.to_dict(), "scoring": encoder.scoring}]
    else:
        pairs = artifact.file("pairs.parquet")
        retrieved = evaluate_encoder(encoder, pairs, out=out, progress=progress, moves=moves)
        figures = [each.to_dict() for each in retrieved.values()]
    remarks = {key: value for key, value in artifact.manifest.summary.items() if key in ("protocol", "note")}
    return [{"evaluation_set": name, **remarks, **figure} for figure in figures]
