"""Evaluation and target sets as a store knows them: one whose files moved keeps the configuration it was made with."""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from caploom.errors import StoreError
from caploom.images.moves import Moves
from caploom.readers.moved import are_these_images, differs_in_place_only, moved_folders
from caploom.readers.source_reader import SourceReader
from caploom.stages.stage import Configuration, Graph
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact, Plan
from caploom.storage.tables import read_first

_SAMPLED = 4  # images whose bytes are compared


def recorded_reader(manifest: Manifest) -> Mapping[str, Any] | None:
    """The settings of the reader that a set was made with; None where its manifest is older than that record."""
    recorded: Mapping[str, Any] | None = manifest.summary.get("reader", manifest.configuration.get("reader"))
    return recorded


def known_configuration(
    graph: Graph, kind: str, name: str, reader: SourceReader, identity: Callable[[Mapping[str, Any]], Configuration]
) -> Configuration:
    """The configuration of a set: `identity` of its reader's present settings, or of those that it was made with.

    The latter where they differ in nothing but the place, and the content is that of a finished set: what was measured
    or trained on it has this configuration in its identity.
    """
    present = identity(reader.fingerprinted())
    plan = Plan(kind=kind, name=(name,), code_version=graph.stage(kind).code_version, configuration=present)
    if graph.view.find(plan) is not None:
        return present
    finished: list[Artifact] = graph.view.readable(kind, name)
    for artifact in sorted(finished, key=lambda each: each.manifest.started, reverse=True):
        manifest, recorded = artifact.manifest, recorded_reader(artifact.manifest)
        if recorded is None or not differs_in_place_only(reader, recorded):
            continue
        if identity(recorded) == manifest.configuration and _has_same_images(reader, recorded, artifact):
            return manifest.configuration
    return present


def _has_same_images(reader: SourceReader, recorded: Mapping[str, Any], artifact: Artifact) -> bool:
    """Whether some images of a finished set have the bytes of then where they would be now."""
    try:
        images = Moves(moved_folders(reader, recorded)).of_table(first_images(artifact, _SAMPLED)).to_pylist()
    except StoreError:
        return False  # its table is gone or damaged: it is of no use
    return are_these_images((row["image_id"], row["path"]) for row in images)


def first_images(artifact: Artifact, count: int) -> pa.Table:
    """The first rows of a set's table, among their columns image_id, image and path."""
    table = min(name for name in artifact.manifest.files if name != "failures.parquet" and name.endswith(".parquet"))
    return read_first(artifact.file(table), count)
