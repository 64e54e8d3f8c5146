"""How long raw captions are, in words: what the rules that match them cut at."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caploom.shearing.lengths import mean_words
from caploom.shearing.rules import CORPUS_WORDS, RULES
from caploom.shearing.settings import ShearStep
from caploom.shearing.spans import Spans
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import captioned, ingested_shards
from caploom.stages.stage import Making, Ref, Stage
from caploom.storage.store import Artifact, Draft
from caploom.storage.tables import read_table

KIND = "raw_words"
CODE_VERSION = "1"


def corpus_words(graph: Graph, steps: Sequence[ShearStep]) -> dict[str, int]:
    """The raw captions' length over all shards, by each statistic that the steps name; none without such.

    Raises `MissingArtifactError` while the words of a shard are not counted.
    """
    statistics = _statistics(steps)
    return _means(_counted(graph), statistics) if statistics else {}


def corpus_words_so_far(graph: Graph, steps: Sequence[ShearStep]) -> dict[str, int]:
    """The same over the shards that are ingested; nothing is written."""
    statistics = _statistics(steps)
    return _means(_added_up(map(_count, ingested_shards(graph))), statistics) if statistics else {}


def uncounted(graph: Graph, steps: Sequence[ShearStep]) -> list[Ref]:
    """What is to be counted before a shear that looks at the corpus can be planned; nothing once it is."""
    if not _statistics(steps):
        return []
    refs = [Ref(KIND, (shard,)) for shard in graph.shards]
    known = graph.derived(Ref("corpus is counted"), lambda: all(graph.find(ref) is not None for ref in refs))
    return [] if known else refs


def _statistics(steps: Sequence[ShearStep]) -> list[Any]:
    return [step.parameters["length"] for step in steps if CORPUS_WORDS in RULES[step.rule].needs]


def _means(histogram: Counter[int], statistics: Sequence[Any]) -> dict[str, int]:
    return {str(statistic): mean_words(histogram, statistic) for statistic in statistics}


def _counted(graph: Graph) -> Counter[int]:
    """Words -> raw captions over all shards."""

    def count() -> Counter[int]:
        made = (graph.require(Ref(KIND, (shard,)), by=Ref("raw_pairs", (shard,))) for shard in graph.shards)
        return _added_up(each.manifest.summary["words"] for each in made)

    return graph.derived(Ref("corpus words"), count)


def _added_up(counted: Iterable[tuple[list[int], list[int]]]) -> Counter[int]:
    histogram: Counter[int] = Counter()
    for words, counts in counted:
        histogram.update(dict(zip(words, counts, strict=True)))
    return histogram


def longest_raw_words(pairs: Artifact, image_ids: Sequence[str]) -> np.ndarray:
    """The words of each image's longest raw caption in a shard, 0 where it has none; int64, shape (images,)."""
    table = read_table(pairs.file("pairs.parquet"), ["image_id", "raw_caption"])
    lengths = table.select(["image_id"]).append_column("words", pa.array(_lengths(table)))
    longest = lengths.group_by("image_id").aggregate([("words", "max")])
    place = pc.index_in(pa.array(image_ids, pa.string()), longest.column("image_id").combine_chunks())
    return np.asarray(pc.fill_null(longest.column("words_max").take(place), 0), np.int64)


def _build(making: Making, draft: Draft) -> None:
    (pairs,) = making.inputs()
    words, counts = _count(pairs)
    draft.summary = {"captions": sum(counts), "words": [words, counts]}
    draft.data_version = pairs.data_version


def _count(pairs: Artifact) -> tuple[list[int], list[int]]:
    """Words of a caption, ascending, and how many raw captions of a shard have so many."""
    table = captioned(read_table(pairs.file("pairs.parquet"), ["raw_caption"]))
    words, counts = np.unique(_lengths(table), return_counts=True)
    return words.tolist(), counts.tolist()


def _lengths(pairs: pa.Table) -> np.ndarray:
    """Words of each raw caption."""
    chunks = pairs.column("raw_caption").chunks
    return np.concatenate([np.zeros(0, np.int32), *(Spans.whole(chunk).count_words() for chunk in chunks)])


RAW_WORDS = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("shard",),
    keys=lambda graph: graph.keys("shards"),
    build=_build,
    upstream=("raw_pairs",),
    inputs=lambda graph, key: [Ref("raw_pairs", key)],
    on_demand=True,  # so that a new shard costs only itself
    hidden=True,
    cost=None,
)
