"""How long raw captions are, in words: what the rules that match them cut at."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caploom.config.factory import Factory
from caploom.shearing.lengths import mean_words
from caploom.shearing.rules import CORPUS_WORDS, RULES
from caploom.shearing.settings import ShearStep
from caploom.shearing.spans import Spans
from caploom.stages.raw_pairs import ingested_shards
from caploom.storage.store import Artifact, Draft, Plan, Store
from caploom.storage.tables import read_table

KIND = "raw_words"
CODE_VERSION = "1"


def corpus_words(factory: Factory, steps: Sequence[ShearStep]) -> dict[str, int]:
    """The raw captions' length over all ingested shards, by each statistic that the steps name; none without such."""
    statistics = [step.parameters["length"] for step in steps if CORPUS_WORDS in RULES[step.rule].needs]
    if not statistics:
        return {}
    histogram: Counter[int] = Counter()
    for pairs in ingested_shards(factory):
        histogram.update(_histogram(factory, pairs))
    return {str(statistic): mean_words(histogram, statistic) for statistic in statistics}


def known_corpus_words(store: Store, steps: Sequence[ShearStep], pairs: Sequence[Artifact]) -> dict[str, int] | None:
    """The same over these raw pairs, where it has been counted; None where it has not. Nothing is written."""
    statistics = [step.parameters["length"] for step in steps if CORPUS_WORDS in RULES[step.rule].needs]
    if not statistics:
        return {}
    histogram: Counter[int] = Counter()
    for artifact in pairs:
        counted = store.find(_histogram_plan(artifact))
        if counted is None:
            return None
        histogram.update(_words_and_counts(counted))
    return {str(statistic): mean_words(histogram, statistic) for statistic in statistics}


def longest_raw_words(pairs: Artifact, image_ids: Sequence[str]) -> np.ndarray:
    """The words of each image's longest raw caption in a shard, 0 where it has none; int64, shape (images,)."""
    table = read_table(pairs.file("pairs.parquet"), ["image_id", "raw_caption"])
    lengths = table.select(["image_id"]).append_column("words", pa.array(_lengths(table)))
    longest = lengths.group_by("image_id").aggregate([("words", "max")])
    place = pc.index_in(pa.array(image_ids, pa.string()), longest.column("image_id").combine_chunks())
    return np.asarray(pc.fill_null(longest.column("words_max").take(place), 0), np.int64)


def _histogram(factory: Factory, pairs: Artifact) -> dict[int, int]:
    """Words -> raw captions of a shard; kept, so that a new shard costs only itself."""

    def build(draft: Draft) -> None:
        table = read_table(pairs.file("pairs.parquet"), ["raw_caption"])
        words, counts = np.unique(_lengths(table), return_counts=True)
        draft.summary = {"captions": len(table), "words": [words.tolist(), counts.tolist()]}
        draft.data_version = pairs.data_version

    return _words_and_counts(factory.store.make(_histogram_plan(pairs), build))


def _histogram_plan(pairs: Artifact) -> Plan:
    return Plan(
        kind=KIND,
        name=(pairs.manifest.configuration["shard"],),
        code_version=CODE_VERSION,
        configuration={},
        inputs=(pairs.as_input(),),
    )


def _words_and_counts(counted: Artifact) -> dict[int, int]:
    words, counts = counted.manifest.summary["words"]
    return dict(zip(words, counts, strict=True))


def _lengths(pairs: pa.Table) -> np.ndarray:
    """Words of each raw caption."""
    chunks = pairs.column("raw_caption").chunks
    return np.concatenate([np.zeros(0, np.int32), *(Spans.whole(chunk).count_words() for chunk in chunks)])
