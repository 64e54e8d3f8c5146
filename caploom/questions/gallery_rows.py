"""Picks the images that galleries show: a shard's first ones, so that they are the same each time."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from caploom.common.names import RAW_SOURCE
from caploom.config.factory import Factory
from caploom.images.moves import STAYED, Moves
from caploom.questions.gallery import GalleryRow
from caploom.stages.captions import read_captions
from caploom.stages.graph import Graph, graph_of
from caploom.stages.moves import moves_of
from caploom.stages.stage import Ref
from caploom.storage.store import Artifact
from caploom.storage.tables import read_first
from caploom.training_set.write import training_files


def shard_gallery(factory: Factory | Graph, shard: str, captioners: Sequence[str], count: int = 5) -> list[GalleryRow]:
    """Images of a shard with their raw captions and those of the captioners that have captioned the shard."""
    captions: dict[str, list[tuple[str, str]]] = {}
    paths: dict[str, str] = {}
    graph = graph_of(factory)
    pairs = graph.require(Ref("raw_pairs", (shard,)))
    for row in moves_of(graph).of_table(read_first(pairs.file("pairs.parquet"), count * 4)).to_pylist():
        if row["image_id"] in captions or len(captions) < count:
            raw = [(RAW_SOURCE, row["raw_caption"])] if row["raw_caption"] else []
            captions.setdefault(row["image_id"], []).extend(raw)
            paths.setdefault(row["image_id"], row["path"])
    for artifact in graph.existing(Ref("captions", (captioner, shard)) for captioner in captioners):
        table = read_captions(artifact).select(["image_id", "captioner", "text"])
        shown = table.filter(pc.is_in(table.column("image_id"), pa.array(list(captions), pa.string())))
        for row in shown.to_pylist():
            captions[row["image_id"]].append((row["captioner"], row["text"]))
    return [GalleryRow(paths[image_id], tuple(texts)) for image_id, texts in captions.items()]


def training_gallery(training_set: Artifact, count: int = 5, *, moves: Moves = STAYED) -> list[GalleryRow]:
    """The first images of a training set with the captions that training draws from; `moves` says where they are."""
    rows = moves.of_table(read_first(training_files(training_set)[0], count)).to_pylist()
    return [GalleryRow(row["path"], tuple(zip(row["sources"], row["captions"], strict=True))) for row in rows]
