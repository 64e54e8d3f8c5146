"""Evaluation sets of every kind as artifacts: images with captions, or images with classes."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from caploom.common.progress import Progress
from caploom.config.factory import Factory
from caploom.config.factory_config import FactoryConfig
from caploom.errors import MissingArtifactError
from caploom.evaluation import classification_images, evaluation_pairs
from caploom.evaluation.classification_images import classification_identity, write_classification_images
from caploom.evaluation.evaluation_pairs import evaluation_pairs_identity, write_evaluation_pairs
from caploom.evaluation.settings import ClassificationSet
from caploom.readers.picture_book import PictureBookReader
from caploom.stages.graph import Graph, graph_of
from caploom.stages.stage import Configuration, Key, Making, Ref, Stage, Tools
from caploom.storage.records import CLASSIFICATION_IMAGES as CLASSIFICATION_SCHEMA
from caploom.storage.records import EVALUATION_PAIRS as PAIRS_SCHEMA
from caploom.storage.records import FAILURES
from caploom.storage.store import Artifact, Draft
from caploom.storage.tables import read_batches, read_table

EVALUATION_KINDS = (evaluation_pairs.KIND, classification_images.KIND)
"""The kinds that an evaluation set may be of."""


def evaluation_ref(config: FactoryConfig, name: str) -> Ref:
    """The evaluation set of that name."""
    is_classified = isinstance(config.evaluation_sets[name], ClassificationSet)
    return Ref(classification_images.KIND if is_classified else evaluation_pairs.KIND, (name,))


def evaluation_set(factory: Factory | Graph, name: str, progress: Progress | None = None) -> Artifact:
    """The evaluation set of that name, made unless it is made; raises `EvaluationError` when it cannot be used."""
    graph = graph_of(factory)
    return graph.make(evaluation_ref(graph.config, name), Tools(progress=progress))


def evaluated_images(artifact: Artifact) -> Iterator[pa.RecordBatch]:
    """The columns image_id and path of an evaluation set's images."""
    return read_batches(_table_of(artifact), ["image_id", "path"])


def hashes_of(artifact: Artifact) -> pa.Table:
    """The columns image_id and phash of an evaluation set's images."""
    return read_table(_table_of(artifact), ["image_id", "phash"])


def _table_of(artifact: Artifact) -> Path:
    (table,) = (name for name in artifact.manifest.files if name in ("pairs.parquet", "images.parquet"))
    return artifact.file(table)


def evaluated_sets(graph: Graph) -> list[str]:
    """The evaluation sets that recipes are measured on, in their order."""
    return list(dict.fromkeys(name for recipe in graph.recipes.values() for name in recipe.evaluation_sets))


def refuse_undrawn(reader: object) -> None:
    """Raise `MissingArtifactError` for pictures that a run would draw: to plan is not to draw them."""
    if isinstance(reader, PictureBookReader) and not reader.is_drawn:
        raise MissingArtifactError("its pictures are not drawn yet (a run draws them)")


def draw(reader: object) -> None:
    """Have a reader's pictures drawn, where it draws some."""
    if isinstance(reader, PictureBookReader):
        reader.prepare()


def _keys(kind: str, graph: Graph) -> list[Key]:
    return [(name,) for name in evaluated_sets(graph) if evaluation_ref(graph.config, name).kind == kind]


def _pairs_configuration(graph: Graph, key: Key) -> Configuration:
    settings = graph.config.evaluation_sets[key[0]]
    refuse_undrawn(settings)
    assert not isinstance(settings, ClassificationSet)
    return graph.fact(("evaluation set", key), lambda: evaluation_pairs_identity(settings))


def _classification_configuration(graph: Graph, key: Key) -> Configuration:
    settings = graph.config.evaluation_sets[key[0]]
    assert isinstance(settings, ClassificationSet)
    return graph.fact(("evaluation set", key), lambda: classification_identity(key[0], settings))


def _build_pairs(making: Making, draft: Draft) -> None:
    settings = making.config.evaluation_sets[making.ref.key[0]]
    assert not isinstance(settings, ClassificationSet)
    write_evaluation_pairs(making.ref.key[0], settings, draft, making.tools.progress)


def _build_classification(making: Making, draft: Draft) -> None:
    settings = making.config.evaluation_sets[making.ref.key[0]]
    assert isinstance(settings, ClassificationSet)
    write_classification_images(making.ref.key[0], settings, draft, making.tools.progress)


EVALUATION_PAIRS = Stage(
    kind=evaluation_pairs.KIND,
    code_version=evaluation_pairs.CODE_VERSION,
    axes=("evaluation_set",),
    keys=lambda graph: _keys(evaluation_pairs.KIND, graph),
    settings=_pairs_configuration,
    build=_build_pairs,
    on_demand=True,
    prepare=lambda graph, key: draw(graph.config.evaluation_sets[key[0]]),
    slot=lambda key: ("evaluation_sets", key[0]),
    source=lambda graph, key: graph.config.evaluation_sets[key[0]].fingerprinted(),
    cost=None,
    tables={"pairs.parquet": PAIRS_SCHEMA, "failures.parquet": FAILURES},
    images="pairs.parquet",
    reads_images=True,
    is_content=True,
)

CLASSIFICATION_IMAGES = Stage(
    kind=classification_images.KIND,
    code_version=classification_images.CODE_VERSION,
    axes=("evaluation_set",),
    keys=lambda graph: _keys(classification_images.KIND, graph),
    settings=_classification_configuration,
    build=_build_classification,
    on_demand=True,
    slot=lambda key: ("evaluation_sets", key[0]),
    source=lambda graph, key: graph.config.evaluation_sets[key[0]].fingerprinted(),
    cost=None,
    tables={"images.parquet": CLASSIFICATION_SCHEMA, "failures.parquet": FAILURES},
    images="images.parquet",
    reads_images=True,
    is_content=True,
)
