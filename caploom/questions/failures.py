"""Every failed row of the factory's present artifacts, in one place."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from caploom.captioning.imported import ImportBackend
from caploom.captioning.settings import ImportedCaptions
from caploom.config.factory import Factory
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingested_shards
from caploom.stages.stage import Ref
from caploom.storage.store import Artifact
from caploom.storage.tables import read_table


def current_failures(factory: Factory) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row of FAILURES) for every shard and captioner of the present configuration.

    Example:
        >>> [(artifact, row["image"], row["reason"]) for artifact, row in current_failures(factory)]
        [('raw_pairs [shard-00001]', 'broken.png', 'undecodable_image')]
    """
    graph = Graph(factory)
    for artifact in ingested_shards(graph):
        shard = artifact.manifest.configuration["shard"]
        yield from _rows(f"raw_pairs [{shard}]", artifact)
        for captions in graph.existing(Ref("captions", (name, shard)) for name in factory.config.captioners):
            yield from _rows(f"captions/{captions.manifest.configuration['captioner']} [{shard}]", captions)


def unmatched_imports(factory: Factory) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row of FAILURES) for every row of an imported file without an image; reads the files."""
    for captioner, settings in factory.config.captioners.items():
        if isinstance(settings, ImportedCaptions):
            with closing(ImportBackend(settings, factory.store)) as imported:
                for row in imported.unmatched():
                    yield f"captions/{captioner} {settings.captions.name}", row


def _rows(where: str, artifact: Artifact) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in read_table(artifact.file("failures.parquet")).to_pylist():
        yield where, row
