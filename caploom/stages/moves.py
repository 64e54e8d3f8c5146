"""Where a factory's images lie now, whoever names them: its pairs, its evaluation and target sets, its store."""

from collections.abc import Iterator
from contextlib import suppress

from caploom.config.factory import Factory
from caploom.errors import StoreError
from caploom.evaluation import classification_images, evaluation_pairs
from caploom.images.moves import PACK, Folders, Moves
from caploom.readers.moved import differs_in_place_only, moved_folders, moved_pictures
from caploom.readers.source_reader import SourceReader
from caploom.stages.graph import Graph, graph_of
from caploom.stages.known_set import first_images, recorded_reader
from caploom.stages.known_source import inbox_moves, source_moves
from caploom.stages.shards import source_in
from caploom.storage.store import Artifact

_TARGETS = "target_set"
_KINDS = (evaluation_pairs.KIND, classification_images.KIND, _TARGETS)


def moves_of(factory: Factory | Graph) -> Moves:
    """Where the images that the store's tables name lie now; manifests and first rows are read, and nothing else."""
    graph = graph_of(factory)
    return graph.fact(("moves",), lambda: _moves_of(graph))


def _moves_of(graph: Graph) -> Moves:
    source = source_in(graph)
    pairs = source_moves(graph.factory, source, graph.view).folders if source is not None else ()
    found = [*pairs, *inbox_moves(graph.factory), *_of_sets(graph)]
    # What was recorded of one folder is the same wherever one of its sources says that it is now.
    folders = dict(sorted(found, key=lambda each: each[0] != each[1]))
    return Moves(tuple(folders.items()), graph.store.url_of("raw_pairs", PACK).removesuffix(f"/raw_pairs/{PACK}"))


def _of_sets(graph: Graph) -> Iterator[tuple[str, str]]:
    sets: dict[str, SourceReader] = {**graph.config.target_sets, **graph.config.evaluation_sets}
    for kind in _KINDS:
        for name, reader in sets.items():
            for artifact in graph.view.readable(kind, name):
                with suppress(StoreError):  # of a damaged table, for whoever reads it
                    yield from _folders(reader, artifact)


def _folders(reader: SourceReader, artifact: Artifact) -> Folders:
    recorded = recorded_reader(artifact.manifest)
    if recorded is None or not (recorded == reader.fingerprinted() or differs_in_place_only(reader, recorded)):
        return ()
    if "folder" not in reader.locations:
        return moved_folders(reader, recorded)
    rows = first_images(artifact, 1).to_pylist()
    return moved_pictures(reader, rows[0]["image"], rows[0]["path"]) if rows else ()
