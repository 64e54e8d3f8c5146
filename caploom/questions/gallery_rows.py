"""Picks the images that galleries show: the first of a shard's, which are the same each time."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from caploom.common.names import RAW_SOURCE
from caploom.config.factory import Factory
from caploom.questions.gallery import Exhibit
from caploom.stages.captions import read_captions
from caploom.stages.graph import Graph, graph_of
from caploom.stages.stage import Ref
from caploom.storage.store import Artifact
from caploom.storage.tables import read_first
from caploom.training_set.write import training_files


def shard_exhibits(factory: Factory | Graph, shard: str, captioners: Sequence[str], count: int = 5) -> list[Exhibit]:
    """Images of a shard with their raw captions and those of the captioners that have captioned the shard."""
    said: dict[str, list[tuple[str, str]]] = {}
    paths: dict[str, str] = {}
    graph = graph_of(factory)
    pairs = graph.require(Ref("raw_pairs", (shard,)))
    for row in read_first(pairs.file("pairs.parquet"), count * 4).to_pylist():
        if row["image_id"] in said or len(said) < count:
            said.setdefault(row["image_id"], []).append((RAW_SOURCE, row["raw_caption"]))
            paths.setdefault(row["image_id"], row["path"])
    for captioner in captioners:
        artifact = graph.find(Ref("captions", (captioner, shard)))
        if artifact is not None:
            captions = read_captions(artifact).select(["image_id", "text"])
            shown = captions.filter(pc.is_in(captions.column("image_id"), pa.array(list(said), pa.string())))
            for row in shown.to_pylist():
                said[row["image_id"]].append((captioner, row["text"]))
    return [Exhibit(paths[image_id], tuple(texts)) for image_id, texts in said.items()]


def training_exhibits(training_set: Artifact, count: int = 5) -> list[Exhibit]:
    """The first images of a training set with the captions that training draws from."""
    rows = read_first(training_files(training_set)[0], count).to_pylist()
    return [Exhibit(row["path"], tuple(zip(row["sources"], row["captions"], strict=True))) for row in rows]
