"""The `captions/<captioner>` stage: what one captioner says of every image of a shard."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pyarrow as pa

from caploom.captioning.backend import Backend, ImageRef
from caploom.captioning.canary_gate import pass_canary
from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.ledger import KIND, Ledger, LedgerWriter
from caploom.captioning.retries import retries_asked
from caploom.captioning.settings import CaptionerSettings
from caploom.common.progress import Progress
from caploom.common.settings import nearest
from caploom.config.factory import Factory
from caploom.errors import ConfigError
from caploom.stages.captions_work import Outcome, ShardWork
from caploom.stages.raw_pairs import raw_pairs_plan, read_pairs
from caploom.storage.store import Artifact, Draft, Plan
from caploom.storage.tables import read_table

CODE_VERSION = "2"

Load = Callable[[], Backend]


def captions_plan(factory: Factory, captioner: str, shard: str, *, retries: int | None = None) -> Plan:
    """The plan of a captioner's captions of a shard; raises `MissingArtifactError` before it is ingested.

    `retries` is how often the shard's failures were asked to be redone: as often as `caploom retry` did, unless given.
    """
    stage = captions_stage(factory, captioner, shard, retries=retries)
    pairs = factory.store.require(raw_pairs_plan(factory, shard), make_with=f"materialize raw_pairs [{shard}]")
    return stage.of([pairs.as_input()])


def captions_stage(
    factory: Factory, captioner: str, shard: str, *, retries: int | None = None, fingerprint: str | None = None
) -> Plan:
    """The same without the inputs; `fingerprint` is the captioner's where it is at hand."""
    settings = _settings(factory, captioner)
    fingerprint = captioner_fingerprint(settings) if fingerprint is None else fingerprint
    asked = retries_asked(factory.store, captioner, fingerprint, shard) if retries is None else retries
    return Plan(
        kind=KIND,
        name=(captioner, fingerprint, shard),
        code_version=CODE_VERSION,
        configuration={
            "captioner": captioner,
            "captioner_fingerprint": fingerprint,
            "shard": shard,
            "settings": settings.fingerprinted(),
            **({"retries": asked} if asked else {}),
        },
    )


def caption_shard(
    factory: Factory, captioner: str, shard: str, load: Load, progress: Progress | None = None
) -> Artifact:
    """Caption a shard's images, but for those that the ledger knows and those that failed too often.

    Writes `captions.parquet` (schema CAPTIONS) and `failures.parquet`. `load` is called only when something must be
    generated. A killed run goes on where it stopped. Raises `CanaryError` before anything is generated in batches that
    cannot be trusted.
    """
    plan = captions_plan(factory, captioner, shard)
    ledger = ledger_of(factory, plan)
    found = factory.store.find(plan)
    if found is not None:
        return found
    with ledger.claimed(shard):
        work = shard_work(factory, captioner, shard, plan)

        def build(draft: Draft) -> None:
            work.write(draft, _generate(work, load, progress))

        artifact = factory.store.make(plan, build)
        ledger.sweep(shard)
    return artifact


def _generate(work: ShardWork, load: Load, progress: Progress | None) -> Outcome:
    """Have the captioner caption what the ledger lacks, and keep it there."""
    started = time.perf_counter()
    missing, done = work.missing, len(work.images) - len(work.missing)
    if not missing:
        return Outcome(wall=time.perf_counter() - started)
    backend = load()
    pass_canary(work.store, work.captioner, work.fingerprint, backend, missing)
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


def shard_work(factory: Factory, captioner: str, shard: str, plan: Plan) -> ShardWork:
    """What is to be done of a shard; its ledger should be claimed."""
    earlier = _earlier_failures(factory, captioner, shard, plan)
    return ShardWork(factory, captioner, plan, ledger_of(factory, plan), shard_images(factory, shard), earlier)


def _earlier_failures(factory: Factory, captioner: str, shard: str, plan: Plan) -> dict[str, dict[str, Any]]:
    """By image, the failures of the shard as it was before they were asked to be redone."""
    retries = plan.configuration.get("retries", 0)
    if not retries:
        return {}
    artifact = factory.store.find(captions_plan(factory, captioner, shard, retries=retries - 1))
    return {row["key"]: row for row in read_failures(artifact)} if artifact is not None else {}


def shard_images(factory: Factory, shard: str) -> list[ImageRef]:
    """The distinct images of an ingested shard, in its order, each with the first of its raw captions."""
    pairs = factory.store.require(raw_pairs_plan(factory, shard), make_with=f"materialize raw_pairs [{shard}]")
    seen: dict[str, ImageRef] = {}
    columns = ["image_id", "path", "image", "raw_caption", "width", "height"]
    for row in read_pairs(pairs).select(columns).to_pylist():
        seen.setdefault(row["image_id"], ImageRef(**row))
    return list(seen.values())


def read_captions(artifact: Artifact) -> pa.Table:
    """The captions of a shard by one captioner (schema CAPTIONS)."""
    return read_table(artifact.file("captions.parquet"))


def read_failures(artifact: Artifact) -> list[dict[str, Any]]:
    """The images of a shard that a captioner failed on (schema FAILURES)."""
    rows: list[dict[str, Any]] = read_table(artifact.file("failures.parquet")).to_pylist()
    return rows


def _settings(factory: Factory, captioner: str) -> CaptionerSettings:
    known = factory.config.captioners
    if captioner not in known:
        raise ConfigError(
            f'There is no captioner "{captioner}"; known: {", ".join(known) or "none"}'
            f"{nearest(captioner, list(known))}."
        )
    return known[captioner]
