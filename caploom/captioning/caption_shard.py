"""The `captions/<captioner>` stage: what one captioner says of every image of a shard."""

import statistics
from collections.abc import Callable

import pyarrow as pa

from caploom.captioning.backend import Backend
from caploom.captioning.engine import ImageRef, caption_images
from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.ledger import KIND, Ledger
from caploom.errors import ConfigError
from caploom.factory import Factory
from caploom.lineage.fingerprints import content_version
from caploom.progress import Progress
from caploom.readers.ingest import raw_pairs_plan, read_pairs
from caploom.records import CAPTIONS
from caploom.settings import nearest
from caploom.store import Artifact, Draft, Plan
from caploom.tables import count_rows, failure, read_table, write_failures, write_table

CODE_VERSION = "1"


def captions_plan(factory: Factory, captioner: str, shard: str) -> Plan:
    """The plan of a captioner's captions of a shard; raises `MissingArtifactError` before it is ingested."""
    known = factory.config.captioners
    if captioner not in known:
        raise ConfigError(
            f'There is no captioner "{captioner}"; known: {", ".join(known) or "none"}'
            f"{nearest(captioner, list(known))}."
        )
    pairs = factory.store.require(raw_pairs_plan(factory, shard), make_with=f"materialize raw_pairs [{shard}]")
    fingerprint = captioner_fingerprint(known[captioner])
    return Plan(
        kind=KIND,
        name=(captioner, fingerprint, shard),
        code_version=CODE_VERSION,
        configuration={
            "captioner": captioner,
            "captioner_fingerprint": fingerprint,
            "shard": shard,
            "settings": known[captioner].fingerprinted(),
        },
        inputs=(pairs.as_input(),),
    )


def caption_shard(
    factory: Factory,
    captioner: str,
    shard: str,
    load: Callable[[], Backend],
    progress: Progress | None = None,
) -> Artifact:
    """Caption a shard's images, but for those that the ledger knows.

    Writes `captions.parquet` (schema CAPTIONS) and `failures.parquet`.

    `load` is called only when something must be generated. A killed run goes on where it stopped: every batch is kept.
    """
    plan = captions_plan(factory, captioner, shard)
    settings = factory.config.captioners[captioner]
    fingerprint = plan.configuration["captioner_fingerprint"]
    ledger = Ledger(factory.store, captioner, fingerprint)

    def build(draft: Draft) -> None:
        images = shard_images(factory, shard)
        known = set(ledger.find([ref.image_id for ref in images]).column("image_id").to_pylist())
        missing = [ref for ref in images if ref.image_id not in known]
        failures: list[dict[str, str]] = []
        seconds = 0.0
        if missing:
            backend = load()
            draft.device = backend.device
            done = len(known)
            for captioned, failed in caption_images(backend, missing, settings.batch_size):
                ledger.append(
                    shard,
                    [
                        {
                            "image_id": item.ref.image_id,
                            "captioner": captioner,
                            "fingerprint": fingerprint,
                            "text": item.generation.text,
                            "tokens": item.generation.tokens,
                            "finish_reason": item.generation.finish_reason,
                            "seconds": item.seconds,
                            "attempt": 1,
                        }
                        for item in captioned
                    ],
                )
                failures += [failure(KIND, f.ref.image_id, f.ref.image, f.reason, f.detail) for f in failed]
                seconds += sum(item.seconds for item in captioned)
                done += len(captioned) + len(failed)
                if progress is not None:
                    progress(done, len(images))
        table = _in_order(ledger.find([ref.image_id for ref in images]), images)
        write_table(table, draft.folder / "captions.parquet")
        write_failures(failures, draft.folder)
        draft.seeds = {"sampling": settings.seed}
        draft.rows = count_rows("images", len(images), len(table), failures)
        said = zip(table.column("image_id").to_pylist(), table.column("text").to_pylist(), strict=True)
        draft.data_version = content_version(
            [*(f"{image}\t{text}" for image, text in said), *(f["key"] for f in failures)]
        )
        draft.summary = _summary(table, generated=len(missing), seconds=seconds)

    artifact = factory.store.make(plan, build)
    ledger.sweep(shard)
    return artifact


def shard_images(factory: Factory, shard: str) -> list[ImageRef]:
    """The distinct images of an ingested shard, in its order."""
    pairs = factory.store.require(raw_pairs_plan(factory, shard), make_with=f"materialize raw_pairs [{shard}]")
    seen: dict[str, ImageRef] = {}
    for row in read_pairs(pairs).select(["image_id", "path", "image"]).to_pylist():
        seen.setdefault(row["image_id"], ImageRef(row["image_id"], row["path"], row["image"]))
    return list(seen.values())


def read_captions(artifact: Artifact) -> pa.Table:
    """The captions of a shard by one captioner (schema CAPTIONS)."""
    return read_table(artifact.file("captions.parquet"))


def _in_order(table: pa.Table, images: list[ImageRef]) -> pa.Table:
    place = {ref.image_id: number for number, ref in enumerate(images)}
    order = sorted(range(len(table)), key=lambda row: place[table.column("image_id")[row].as_py()])
    return table.take(order) if len(table) else CAPTIONS.empty_table()


def _summary(table: pa.Table, *, generated: int, seconds: float) -> dict[str, object]:
    tokens = table.column("tokens").to_pylist()
    reasons = table.column("finish_reason").to_pylist()
    return {
        "captions": len(table),
        "generated": generated,
        "generation_seconds": round(seconds, 3),
        "images_per_second": round(generated / seconds, 1) if seconds else None,
        "mean_tokens": round(statistics.fmean(tokens), 2) if tokens else None,
        "share_at_token_cap": round(reasons.count("length") / len(reasons), 4) if reasons else None,
    }
