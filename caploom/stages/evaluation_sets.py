"""Evaluation sets of every kind as artifacts: images with captions, or images with classes."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from caploom.common.progress import Progress
from caploom.config.factory import Factory
from caploom.evaluation.classification_images import classification_images, classification_images_plan
from caploom.evaluation.evaluation_pairs import evaluation_pairs, evaluation_pairs_plan
from caploom.evaluation.settings import ClassificationSet
from caploom.storage.store import Artifact, Plan
from caploom.storage.tables import read_batches, read_table


def evaluation_set(factory: Factory, name: str, progress: Progress | None = None) -> Artifact:
    """The evaluation set of that name, made unless it is made; raises `EvaluationError` when it cannot be used."""
    settings = factory.config.evaluation_sets[name]
    make = classification_images if isinstance(settings, ClassificationSet) else evaluation_pairs
    return make(factory, name, progress)


def evaluation_set_plan(factory: Factory, name: str) -> Plan:
    """The plan of the same, without making it; raises `SourceError` or `EvaluationError` when it cannot be used."""
    settings = factory.config.evaluation_sets[name]
    if isinstance(settings, ClassificationSet):
        return classification_images_plan(name, settings)
    return evaluation_pairs_plan(name, settings)


def evaluated_images(artifact: Artifact) -> Iterator[pa.RecordBatch]:
    """The columns image_id and path of an evaluation set's images."""
    return read_batches(_table_of(artifact), ["image_id", "path"])


def hashes_of(artifact: Artifact) -> pa.Table:
    """The columns image_id and phash of an evaluation set's images."""
    return read_table(_table_of(artifact), ["image_id", "phash"])


def _table_of(artifact: Artifact) -> Path:
    (table,) = (name for name in artifact.manifest.files if name in ("pairs.parquet", "images.parquet"))
    return artifact.file(table)
