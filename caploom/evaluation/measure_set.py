"""Measures a checkpoint on an evaluation set of any kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from caploom.evaluation.classification import classify
from caploom.evaluation.classification_images import set_classes
from caploom.evaluation.encoders import Encoder
from caploom.evaluation.evaluate import evaluate_encoder
from caploom.evaluation.settings import ClassificationSet, EvaluationSet
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
) -> list[dict[str, Any]]:
    """Measure a checkpoint's encoders on an evaluation set (its artifact): one measurement per scoring.

    A measurement has `kind` ("retrieval" or "classification"), `scoring`, the set's own remarks (`protocol`,
    `note`) and the figures of `RetrievalMetrics` or `ClassificationMetrics`. Into the existing folder `out` go
    `metrics.json` and, for images with captions, `ranks.parquet` (schema RANKS); for images with classes,
    `predictions.parquet` (schema PREDICTIONS). `progress` gets embeddings done and in total.

    Raises:
        EvaluationError: if the set is unusable or cannot be measured.
    """
    if isinstance(settings, ClassificationSet):
        images = artifact.file("images.parquet")
        classified = classify(encoder, images, set_classes(artifact), settings.templates, out=out, progress=progress)
        figures = [{**classified.to_dict(), "scoring": encoder.scoring}]
    else:
        retrieved = evaluate_encoder(encoder, artifact.file("pairs.parquet"), out=out, progress=progress)
        figures = [each.to_dict() for each in retrieved.values()]
    remarks = {key: value for key, value in artifact.manifest.summary.items() if key in ("protocol", "note")}
    return [{"evaluation_set": name, **remarks, **figure} for figure in figures]
