"""What captioning costs: the images that a captioner would still be shown, and how fast it was."""

import math
from collections.abc import Sequence

from caploom.captioning.ledger import KIND, Ledger
from caploom.captioning.retries import retries_asked
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import images_in, read_pairs, rows_of
from caploom.stages.stage import Alike, Cost, Key, Measured, Ref
from caploom.storage.manifest import Manifest
from caploom.storage.records import pair_identity
from caploom.storage.tables import read_table

_AT_ONCE = 100_000  # images that the ledger is asked about in one go


def captions_of(graph: Graph, captioner: str, shard: str) -> int:
    """A captioner's captions of a shard: all that it may make, while it has not made them."""
    made = graph.find(Ref(KIND, (captioner, shard)))
    rows = made.manifest.rows if made is not None else None
    return rows.rows_out if rows is not None else images_in(graph, shard)


def images_to_caption(graph: Graph, keys: Sequence[Key]) -> tuple[int, bool]:
    """How many images of these shards a captioner would be shown, and whether that is certain.

    Those that the ledger knows are left out, and those that it failed on too often; an image of two shards counts once.
    """
    if not keys:
        return 0, True
    captioner = keys[0][0]
    ledger = Ledger(graph.store, captioner, graph.fingerprint(captioner))
    shards = [shard for _, shard in keys]
    ingested = [shard for shard in shards if graph.find(Ref("raw_pairs", (shard,))) is not None]
    wanted: dict[tuple[str, str], None] = {}
    count = sum(rows_of(graph, shard) for shard in shards if shard not in set(ingested))
    for shard in ingested:
        wanted.update(dict.fromkeys(_asked(graph, captioner, shard)))
        if len(wanted) >= _AT_ONCE:
            count += _missing(ledger, list(wanted))
            wanted = {}
    return count + _missing(ledger, list(wanted)), len(ingested) == len(shards)


def _asked(graph: Graph, captioner: str, shard: str) -> list[tuple[str, str]]:
    """Image and pair of what a shard asks of a captioner; the pair is empty where the prompt quotes no raw caption."""
    settings = graph.config.captioners[captioner]
    given_up = _given_up(graph, captioner, shard, settings.max_attempts)
    pairs = read_pairs(graph.require(Ref("raw_pairs", (shard,)))).select(["image_id", "raw_caption"])
    first: dict[str, str] = {}
    for row in pairs.to_pylist():
        first.setdefault(row["image_id"], row["raw_caption"])
    return [
        (image, pair_identity(image, raw) if settings.needs_raw_caption else "")
        for image, raw in first.items()
        if image not in given_up and (raw or not settings.needs_raw_caption)
    ]


def _given_up(graph: Graph, captioner: str, shard: str, max_attempts: int) -> set[str]:
    fingerprint = graph.fingerprint(captioner)
    retries = retries_asked(graph.store, captioner, fingerprint, shard, listed=True)
    if not retries:
        return set()
    attempts = graph.view.artifacts(KIND, captioner, fingerprint, shard)
    before = [each for each in attempts if each.manifest.configuration.get("retries", 0) == retries - 1]
    failures = [row for each in before for row in read_table(each.file("failures.parquet")).to_pylist()]
    return {row["key"] for row in failures if row["attempt"] >= max_attempts}


def _missing(ledger: Ledger, asked: Sequence[tuple[str, str]]) -> int:
    """How many of these the ledger lacks."""
    images, pairs = [image for image, _ in asked], [pair for _, pair in asked if pair]
    return len(ledger.missing(images, pairs or None))


def _measured(graph: Graph, manifest: Manifest) -> Measured:
    images = manifest.summary.get("generated") or 0
    # On a cluster the artifact took only its tables' writing, and its workers were at it for longer.
    worked = images / (manifest.summary.get("images_per_second") or math.inf)
    return Measured(images, max(manifest.seconds, worked))


def _alike(graph: Graph, key: Key) -> list[Alike]:
    """This captioner, else it with other settings, else another with its model."""
    captioner = key[0]
    model = graph.config.captioners[captioner].fingerprinted().get("model")

    def same_model(graph: Graph, manifest: Manifest) -> bool:
        return model is not None and manifest.configuration.get("settings", {}).get("model") == model

    return [
        Alike("captions of this captioner", (captioner, graph.fingerprint(captioner))),
        Alike("captions of this captioner with other settings", (captioner,)),
        Alike("captions of another captioner with the same model", (), same_model),
    ]


CAPTIONS_COST = Cost(
    unit="captions",
    line=lambda graph, key: key[0],
    units=images_to_caption,
    shared_by=lambda graph, keys: len({each.base for each in graph.recipes.values() if keys[0][0] in each.captioners}),
    measured=_measured,
    alike=_alike,
    verb="caption",
)
