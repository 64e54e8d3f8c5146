"""Redoing a shard's failures alone, each image as often as its captioner allows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from caploom.captioning.backend import Backend
from caploom.captioning.retries import request_retry
from caploom.captioning.settings import CaptionerSettings
from caploom.common.progress import Progress, StageBar
from caploom.config.factory import Factory
from caploom.stages.captions import Load, caption_shard, read_failures
from caploom.stages.graph import Graph, graph_of
from caploom.stages.raw_pairs import ingested_shards
from caploom.stages.stage import Ref
from caploom.storage.store import Artifact, Store


@dataclass(frozen=True)
class Retried:
    """What came of redoing a shard's failures."""

    artifact: Artifact
    tried: int
    captioned: int
    given_up: int


def shards_to_retry(factory: Factory, captioner: str) -> dict[str, int]:
    """By shard, how many images the captioner failed on fewer than `max_attempts` times; no shard without any."""
    graph = graph_of(factory)
    shards = (pairs.manifest.configuration["shard"] for pairs in ingested_shards(graph))
    counts = {shard: len(_to_retry(graph, captioner, shard)) for shard in shards}
    return {shard: count for shard, count in counts.items() if count}


def _to_retry(graph: Graph, captioner: str, shard: str) -> set[str]:
    """The images of a shard that the captioner failed on fewer than `max_attempts` times."""
    artifact = graph.find(Ref("captions", (captioner, shard)))
    if artifact is None or (artifact.manifest.rows is not None and not artifact.manifest.rows.rows_failed):
        return set()
    limit = graph.config.captioners[captioner].max_attempts
    return {row["key"] for row in read_failures(artifact) if row["attempt"] < limit}


def retry_failures(
    factory: Factory, captioner: str, shard: str, load: Load, progress: Progress | None = None
) -> Retried | None:
    """Caption again the images of a finished shard that failed fewer than `max_attempts` times, and only those.

    Their new captions and what still fails make a new artifact of the shard; the old one stays. None when the shard is
    not captioned yet or has nothing to redo. Raises what `caption_shard` raises.
    """
    tried = ask_to_retry(factory, captioner, shard)
    if not tried:
        return None
    limit = factory.config.captioners[captioner].max_attempts
    made = caption_shard(factory, captioner, shard, load, progress)
    still = read_failures(made)
    return Retried(
        artifact=made,
        tried=len(tried),
        captioned=len(tried - {row["key"] for row in still}),
        given_up=sum(row["attempt"] >= limit for row in still),
    )


def ask_to_retry(factory: Factory, captioner: str, shard: str) -> set[str]:
    """Have a finished shard's captions be a new artifact, still to be made, in which some failed images are redone.

    Those are returned: the images that failed fewer than `max_attempts` times. Without any, nothing is asked for.
    """
    graph = graph_of(factory)
    tried = _to_retry(graph, captioner, shard)
    if tried:
        request_retry(factory.store, captioner, graph.fingerprint(captioner), shard)
    return tried


def retry_every_shard(
    factory: Factory, captioner: str, load: Callable[[CaptionerSettings, Store], Backend], bar: StageBar
) -> Iterator[tuple[str, Retried]]:
    """`retry_failures` over all ingested shards, the captioner loaded once and only if there is something to redo."""
    loaded: list[Backend] = []

    def load_once() -> Backend:
        if not loaded:
            loaded.append(load(factory.config.captioners[captioner], factory.store))
        return loaded[0]

    try:
        for pairs in ingested_shards(factory):
            shard = pairs.manifest.configuration["shard"]
            retried = retry_failures(factory, captioner, shard, load_once, bar.part())
            if retried is not None:
                yield shard, retried
    finally:
        for backend in loaded:
            backend.close()
