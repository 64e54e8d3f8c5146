"""Evaluation sets of every kind as artifacts: images with captions, or images with classes."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

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
from caploom.stages.known_set import known_configuration
from caploom.stages.stage import Configuration, Key, Making, Ref, Stage
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


def evaluation_set(factory: Factory | Graph, name: str) -> Artifact:
    """The evaluation set of that name, made unless it is made; raises `EvaluationError` when it cannot be used."""
    graph = graph_of(factory)
    return graph.make(evaluation_ref(graph.config, name))


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


def _stage(
    kind: str,
    code_version: str,
    identity: Callable[[str, Any, Mapping[str, Any]], Configuration],
    write: Callable[[str, Any, Draft, Progress | None], None],
    images: tuple[str, pa.Schema],
) -> Stage:
    """One of the kinds: `identity` says what decides a set of settings, `write` fills a draft, `images` is a table."""

    def settings(graph: Graph, key: Key) -> Configuration:
        chosen = graph.config.evaluation_sets[key[0]]
        refuse_undrawn(chosen)
        name = key[0]
        return graph.fact(
            ("evaluation set", key),
            lambda: known_configuration(graph, kind, name, chosen, partial(identity, name, chosen)),
        )

    def build(making: Making, draft: Draft) -> None:
        (name,) = making.ref.key
        write(name, making.config.evaluation_sets[name], draft, making.tools.progress)

    return Stage(
        kind=kind,
        code_version=code_version,
        axes=("evaluation_set",),
        keys=lambda graph: [(n,) for n in evaluated_sets(graph) if evaluation_ref(graph.config, n).kind == kind],
        settings=settings,
        build=build,
        on_demand=True,
        prepare=lambda graph, key: draw(graph.config.evaluation_sets[key[0]]),
        slot=lambda key: ("evaluation_sets", key[0]),
        source=lambda graph, key: graph.config.evaluation_sets[key[0]].fingerprinted(),
        cost=None,
        tables={images[0]: images[1], "failures.parquet": FAILURES},
        images=images[0],
        reads_images=True,
        is_content=True,
    )


EVALUATION_PAIRS = _stage(
    evaluation_pairs.KIND,
    evaluation_pairs.CODE_VERSION,
    lambda name, settings, recorded: evaluation_pairs_identity(settings, recorded),
    write_evaluation_pairs,
    ("pairs.parquet", PAIRS_SCHEMA),
)
CLASSIFICATION_IMAGES = _stage(
    classification_images.KIND,
    classification_images.CODE_VERSION,
    classification_identity,
    write_classification_images,
    ("images.parquet", CLASSIFICATION_SCHEMA),
)
