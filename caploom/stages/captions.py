"""The `captions/<captioner>` stage: what one captioner says of every image of a shard."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from caploom.captioning.backend import Backend, ImageRef
from caploom.captioning.ledger import KIND, Ledger, LedgerWriter
from caploom.captioning.retries import retries_asked
from caploom.captioning.settings import CaptionerSettings
from caploom.common.progress import Progress
from caploom.common.settings import nearest
from caploom.config.factory import Factory
from caploom.errors import ConfigError
from caploom.images.moves import Moves
from caploom.stages.canaries import canary_of, pass_canary
from caploom.stages.captions_cost import CAPTIONS_COST
from caploom.stages.captions_work import Outcome, ShardWork
from caploom.stages.checks import (
    BATCHED_EQUALS_SINGLE,
    ORPHAN_FREE,
    ROWS_ACCOUNTED,
    CheckOutcome,
    accounted,
    orphan_free,
)
from caploom.stages.graph import Graph, graph_of
from caploom.stages.moves import moves_of
from caploom.stages.raw_pairs import read_pairs
from caploom.stages.stage import BEHIND, Checks, Configuration, Key, Making, Ref, Stage, Tools
from caploom.stages.words import captioner_in_words
from caploom.storage.records import CAPTIONS as CAPTIONS_SCHEMA
from caploom.storage.records import FAILURES
from caploom.storage.store import Artifact, Draft, Plan
from caploom.storage.tables import read_table

CODE_VERSION = "2"

Load = Callable[[], Backend]


def caption_shard(
    factory: Factory | Graph, captioner: str, shard: str, load: Load, progress: Progress | None = None
) -> Artifact:
    """Caption a shard's images, but for those that the ledger knows and those that failed too often.

    Writes `captions.parquet` (schema CAPTIONS) and `failures.parquet`. `load` is called only when something must be
    generated. A killed run goes on where it stopped. Raises `CanaryError` before anything is generated in batches that
    cannot be trusted.
    """
    tools = Tools(progress=progress, load=lambda settings, store: load())
    return graph_of(factory).make(Ref(KIND, (captioner, shard)), tools)


def _build(making: Making, draft: Draft) -> None:
    captioner, shard = making.ref.key
    work = shard_work(making.graph, captioner, shard, making.plan)
    load = partial(making.tools.load, making.config.captioners[captioner], making.store)
    work.write(draft, generate(work, load, making.tools.progress))


@contextmanager
def _claimed(making: Making) -> Iterator[None]:
    shard = making.ref.key[1]
    ledger = ledger_of(making.factory, making.plan)
    with ledger.claimed(shard):
        yield
        ledger.sweep(shard)


def generate(
    work: ShardWork, load: Load, progress: Progress | None, canary: Sequence[ImageRef] | None = None
) -> Outcome:
    """Have the captioner caption what the ledger lacks, and keep it there; the shard should be claimed.

    `canary` are the images that its canary may be of, if these are not the missing ones.
    """
    started = time.perf_counter()
    missing, done = work.missing, len(work.images) - len(work.missing)
    if not missing:
        return Outcome(wall=time.perf_counter() - started)
    backend = load()
    pass_canary(work.store, work.captioner, work.fingerprint, backend, canary or missing)
    failures: list[dict[str, Any]] = []
    seconds = 0.0
    with LedgerWriter(work.ledger, work.shard) as writer, closing(backend.caption(missing)) as chunks:
        for chunk in chunks:
            writer.append([work.rows.of(item) for item in chunk.captioned])
            failures += [work.rows.failure(item) for item in chunk.failed]
            seconds += sum(item.seconds for item in chunk.captioned)
            done += len(chunk.captioned) + len(chunk.failed)
            if progress is not None:
                progress(done, len(work.images), len(work.given_up) + len(failures))
    return Outcome(len(missing), failures, seconds, time.perf_counter() - started, backend.facts, backend.device)


def ledger_of(factory: Factory, plan: Plan) -> Ledger:
    """The ledger that the captions of a plan come from."""
    return Ledger(factory.store, plan.configuration["captioner"], plan.configuration["captioner_fingerprint"])


def shard_work(
    graph: Graph, captioner: str, shard: str, plan: Plan, images: Sequence[ImageRef] | None = None
) -> ShardWork:
    """What is to be done of a shard, or of some of its images; its ledger should be claimed."""
    earlier = _earlier_failures(graph, plan)
    ledger = ledger_of(graph.factory, plan)
    images = shard_images(graph, shard) if images is None else images
    return ShardWork(graph.factory, captioner, plan, ledger, images, earlier)


def _earlier_failures(graph: Graph, plan: Plan) -> dict[str, dict[str, Any]]:
    """By image, the failures of the shard as it was before they were asked to be redone."""
    retries = plan.configuration.get("retries", 0)
    if not retries:
        return {}
    before = {key: value for key, value in plan.configuration.items() if key != "retries"}
    before |= {"retries": retries - 1} if retries > 1 else {}
    artifact = graph.view.find(replace(plan, configuration=before))
    return {row["key"]: row for row in read_failures(artifact)} if artifact is not None else {}


def shard_images(factory: Factory | Graph, shard: str) -> list[ImageRef]:
    """The distinct images of an ingested shard, in its order, each with the first of its raw captions."""
    graph = graph_of(factory)
    return images_of(graph.require(Ref("raw_pairs", (shard,))), moves_of(graph))


def images_of(pairs: Artifact, moves: Moves) -> list[ImageRef]:
    """The same of raw pairs at hand; `moves` says where their images are now."""
    seen: dict[str, ImageRef] = {}
    columns = ["image_id", "path", "image", "raw_caption", "width", "height"]
    for row in moves.of_table(read_pairs(pairs).select(columns)).to_pylist():
        seen.setdefault(row["image_id"], ImageRef(**row))
    return list(seen.values())


def read_captions(artifact: Artifact) -> pa.Table:
    """The captions of a shard by one captioner (schema CAPTIONS)."""
    return read_table(artifact.file("captions.parquet"))


def read_failures(artifact: Artifact) -> list[dict[str, Any]]:
    """The images of a shard that a captioner failed on (schema FAILURES)."""
    rows: list[dict[str, Any]] = read_table(artifact.file("failures.parquet")).to_pylist()
    return rows


def captioner_settings(graph: Graph, captioner: str) -> CaptionerSettings:
    """The settings of the captioner of that name; raises `ConfigError` when there is none."""
    known = graph.config.captioners
    if captioner not in known:
        raise ConfigError(
            f'There is no captioner "{captioner}"; known: {", ".join(known) or "none"}'
            f"{nearest(captioner, list(known))}."
        )
    return known[captioner]


def _configuration(graph: Graph, key: Key) -> Configuration:
    captioner, shard = key
    return {
        "captioner": captioner,
        "captioner_fingerprint": graph.fingerprint(captioner),
        "shard": shard,
        "settings": graph.fact(("settings", captioner), captioner_settings(graph, captioner).fingerprinted),
    }


def _retries(graph: Graph, key: Key) -> Configuration:
    captioner, shard = key
    graph.view.refresh(KIND)
    retries = retries_asked(graph.store, captioner, graph.fingerprint(captioner), shard, listed=True)
    return {"retries": retries} if retries else {}


def _name(graph: Graph, key: Key) -> Key:
    captioner_settings(graph, key[0])
    return (key[0], graph.fingerprint(key[0]), key[1])


def shown_captions(configuration: Mapping[str, Any]) -> Configuration:
    """What made captions, key by key as the YAML has it."""
    retries = {"retries": configuration.get("retries", 0)}
    return {**configuration["settings"], **retries, BEHIND: configuration["captioner_fingerprint"]}


def check_captions(graph: Graph, artifact: Artifact) -> list[CheckOutcome]:
    """Images in = captions + failures; each caption is of an image of the shard, and no image has two."""
    images = {ref.image_id for ref in shard_images(graph, artifact.manifest.configuration["shard"])}
    captions = read_captions(artifact).column("image_id").to_pylist()
    failed = [row["key"] for row in read_failures(artifact)]
    return [
        _canary_check(graph, artifact),
        accounted(len(images), len(captions), len(failed)),
        orphan_free(orphans=len({*captions, *failed} - images), doubled=len(captions) - len(set(captions))),
    ]


def _canary_check(graph: Graph, captions: Artifact) -> CheckOutcome:
    configuration = captions.manifest.configuration
    canary = canary_of(graph, configuration["captioner"], configuration["captioner_fingerprint"])
    if canary is None:
        return CheckOutcome(BATCHED_EQUALS_SINGLE, True, "Nothing was generated in batches.", {"images": 0})
    images = canary.manifest.summary["images"]
    sentence = f"{images} images got in one batch what they get alone."
    return CheckOutcome(BATCHED_EQUALS_SINGLE, True, sentence, canary.manifest.summary)


CAPTIONS = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("captioner", "shard"),
    keys=lambda graph: [(captioner, shard) for captioner in graph.config.captioners for shard in graph.shards],
    settings=_configuration,
    facts=_retries,
    build=_build,
    upstream=("raw_pairs",),
    inputs=lambda graph, key: [Ref("raw_pairs", (key[1],))],
    name=_name,
    name_parts=("captioner", "#fingerprint", "shard"),
    around=_claimed,
    shown=shown_captions,
    words=lambda configuration: captioner_in_words(configuration["settings"]),
    unit="images",
    cost=CAPTIONS_COST,
    tables={"captions.parquet": CAPTIONS_SCHEMA, "failures.parquet": FAILURES},
    # For one captioner alone, so that two captioners can be compared image by image.
    texts="select image_id, '' as source, text as said from read_parquet(?)",
    reads_images=True,
    fact_keys=frozenset({"retries"}),
    checks=Checks((BATCHED_EQUALS_SINGLE, ROWS_ACCOUNTED, ORPHAN_FREE), check_captions),
    remake="caploom.reproduce.remake:caption",
)
