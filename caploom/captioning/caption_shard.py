"""The `captions/<captioner>` stage: what one captioner says of every image of a shard."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from caploom.captioning.backend import Backend, Captioned, Failed, ImageRef
from caploom.captioning.canary_gate import pass_canary
from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.ledger import KIND, Ledger, LedgerWriter
from caploom.captioning.retries import retries_asked
from caploom.captioning.settings import CaptionerSettings
from caploom.errors import ConfigError
from caploom.factory import Factory
from caploom.lineage.fingerprints import content_version
from caploom.progress import Progress
from caploom.readers.ingest import raw_pairs_plan, read_pairs
from caploom.records import CAPTIONS, pair_identity
from caploom.settings import nearest
from caploom.store import Artifact, Draft, Plan
from caploom.tables import count_rows, failure, read_table, write_failures, write_table

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
    ledger = Ledger(factory.store, captioner, plan.configuration["captioner_fingerprint"])
    found = factory.store.find(plan)
    if found is not None:
        return found
    with ledger.claimed(shard):
        work = _Work(factory, captioner, shard, plan, ledger)
        artifact = factory.store.make(plan, lambda draft: work.build(draft, load, progress))
        ledger.sweep(shard)
    return artifact


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


class _Work:
    """One shard's captions, from the ledger and from the captioner."""

    def __init__(self, factory: Factory, captioner: str, shard: str, plan: Plan, ledger: Ledger) -> None:
        self._factory = factory
        self._captioner = captioner
        self._shard = shard
        self._plan = plan
        self._ledger = ledger
        self._settings = factory.config.captioners[captioner]
        self._fingerprint: str = plan.configuration["captioner_fingerprint"]
        self._images = shard_images(factory, shard)
        self._ids = [ref.image_id for ref in self._images]
        self._pair_ids = (
            [pair_identity(ref.image_id, ref.raw_caption) for ref in self._images]
            if self._settings.needs_raw_caption
            else None
        )
        self._pair_of = dict(zip(self._ids, self._pair_ids, strict=True)) if self._pair_ids else {}
        self._failures: list[dict[str, Any]] = []
        self._seconds = 0.0

    def build(self, draft: Draft, load: Load, progress: Progress | None) -> None:
        """Generate what is missing and write the shard's tables."""
        earlier = self._earlier_failures()
        given_up = {key: row for key, row in earlier.items() if row["attempt"] >= self._settings.max_attempts}
        missing = set(self._ledger.missing(self._ids, self._pair_ids)) - given_up.keys()
        self._failures = list(given_up.values())
        started = time.perf_counter()
        facts = self._generate([ref for ref in self._images if ref.image_id in missing], earlier, draft, load, progress)
        table = self._in_order(self._ledger.find(self._ids, self._pair_ids))
        write_table(table, draft.folder / "captions.parquet")
        write_failures(self._failures, draft.folder)
        if "seed" in self._plan.configuration["settings"]:
            draft.seeds = {"sampling": self._plan.configuration["settings"]["seed"]}
        draft.rows = count_rows("images", len(self._images), len(table), self._failures)
        said = zip(table.column("image_id").to_pylist(), table.column("text").to_pylist(), strict=True)
        draft.data_version = content_version(
            [*(f"{image}\t{text}" for image, text in said), *(row["key"] for row in self._failures)]
        )
        draft.summary = {
            **_summary(table, generated=len(missing), model=self._seconds, wall=time.perf_counter() - started),
            **facts,
        }

    def _generate(
        self,
        missing: Sequence[ImageRef],
        earlier: dict[str, dict[str, Any]],
        draft: Draft,
        load: Load,
        progress: Progress | None,
    ) -> dict[str, Any]:
        if not missing:
            return {}
        backend = load()
        draft.device = backend.device
        pass_canary(self._factory.store, self._captioner, self._fingerprint, backend, missing)
        attempts = {key: row["attempt"] for key, row in earlier.items()}
        done = len(self._images) - len(missing)
        with LedgerWriter(self._ledger, self._shard) as writer, closing(backend.caption(missing)) as chunks:
            for chunk in chunks:
                writer.append([self._row(item, attempts) for item in chunk.captioned])
                self._failures += [_failure(item, attempts) for item in chunk.failed]
                self._seconds += sum(item.seconds for item in chunk.captioned)
                done += len(chunk.captioned) + len(chunk.failed)
                if progress is not None:
                    progress(done, len(self._images), len(self._failures))
        return {"captioner_facts": backend.facts}

    def _row(self, item: Captioned, attempts: dict[str, int]) -> dict[str, Any]:
        return {
            "image_id": item.ref.image_id,
            "captioner": self._captioner,
            "fingerprint": self._fingerprint,
            "text": item.generation.text,
            "tokens": item.generation.tokens,
            "finish_reason": item.generation.finish_reason,
            "seconds": item.seconds,
            "attempt": attempts.get(item.ref.image_id, 0) + 1,
            "pair_id": self._pair_of.get(item.ref.image_id),
        }

    def _earlier_failures(self) -> dict[str, dict[str, Any]]:
        """By image, the failures of this shard as it was before they were asked to be redone."""
        retries = self._plan.configuration.get("retries", 0)
        if not retries:
            return {}
        plan = captions_plan(self._factory, self._captioner, self._shard, retries=retries - 1)
        artifact = self._factory.store.find(plan)
        return {row["key"]: row for row in read_failures(artifact)} if artifact is not None else {}

    def _in_order(self, table: pa.Table) -> pa.Table:
        place = {image_id: number for number, image_id in enumerate(self._ids)}
        ids = table.column("image_id").to_pylist()
        order = sorted(range(len(ids)), key=lambda row: place[ids[row]])
        return table.take(order) if order else CAPTIONS.empty_table()


def _failure(item: Failed, attempts: dict[str, int]) -> dict[str, Any]:
    attempt = attempts.get(item.ref.image_id, 0) + 1
    return failure(KIND, item.ref.image_id, item.ref.image, item.reason, item.detail, attempt)


def _summary(table: pa.Table, *, generated: int, model: float, wall: float) -> dict[str, object]:
    tokens = [count for count in table.column("tokens").to_pylist() if count is not None]
    reasons = table.column("finish_reason").to_pylist()
    return {
        "captions": len(table),
        "generated": generated,
        "generation_seconds": round(model, 3),  # of the model alone
        "images_per_second": round(generated / wall, 1) if generated else None,
        "mean_tokens": round(statistics.fmean(tokens), 2) if tokens else None,
        "share_at_token_cap": round(reasons.count("length") / len(reasons), 4) if reasons else None,
        "share_stopped_by_shear": round(reasons.count("shear") / len(reasons), 4) if reasons else None,
    }
