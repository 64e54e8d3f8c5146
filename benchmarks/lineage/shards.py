"""The part of the store that is kept by shard: listings, raw pairs, captions and sheared captions."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.captions import CAPTIONERS, caption_column, raw_caption_column
from benchmarks.lineage.writer import Writer
from caploom.captioning.identity import captioner_fingerprint
from caploom.config.factory import Factory
from caploom.shearing.rule import Context
from caploom.shearing.table import shear_table
from caploom.stages.captions import CODE_VERSION as CAPTIONS_VERSION
from caploom.stages.raw_pairs import CODE_VERSION as PAIRS_VERSION
from caploom.stages.shards import CODE_VERSION as SHARDS_VERSION
from caploom.stages.shards import source_fingerprint
from caploom.stages.sheared import CODE_VERSION as SHEAR_VERSION
from caploom.stages.sheared import shear_fingerprint
from caploom.storage.manifest import InputRecord, RowCount
from caploom.storage.records import (
    CAPTIONS,
    PAIRS,
    SOURCE_ROWS,
    pair_identity,
)
from caploom.storage.store import Plan
from caploom.storage.tables import write_failures, write_table
from caploom.training_set.order import image_ids

SHARD_ROWS = 2_500
_FAILED = 1_000  # one image in so many has no caption of a captioner


@dataclass(frozen=True)
class Shard:
    """A shard: the identities of its images, its raw pairs, and its sheared captions by captioner."""

    name: str
    images: list[str]
    pairs: InputRecord
    sheared: dict[str, InputRecord]


def image_path(number: int) -> str:
    """The path of an image as the user wrote it."""
    return f"{number // 10_000:05d}/{number:09d}.jpg"


def shard_rows(size: int) -> int:
    """Images of a shard: 2,500, or fewer so that there are four shards."""
    return min(SHARD_ROWS, -(-size // 4))


def write_shards(factory: Factory, writer: Writer, size: int, rows: int) -> Iterator[Shard]:
    """Shards of so many rows until there are `size` images, each written when it is asked for."""
    digests = np.random.default_rng(0)
    raw = raw_caption_column(size, block=rows)
    texts = {name: caption_column(size, seed=seed, block=rows) for seed, name in enumerate(CAPTIONERS)}
    for shard, start in enumerate(range(0, size, rows)):
        count = min(rows, size - start)
        ids = image_ids(digests.integers(0, 256, (count, 32), dtype=np.uint8))
        images = pa.array([image_path(number) for number in range(start, start + count)])
        name = f"shard-{shard:05d}"
        pairs = _pairs(factory, writer, name, ids, images, next(raw), start)
        sheared = {
            captioner: _captions(factory, writer, name, captioner, ids, images, next(column), pairs)
            for captioner, column in texts.items()
        }
        yield Shard(name, ids.to_pylist(), pairs, sheared)


def _pairs(
    factory: Factory, writer: Writer, shard: str, ids: pa.Array, images: pa.Array, raw: pa.Array, start: int
) -> InputRecord:
    source = source_fingerprint(factory)
    paths = pc.binary_join_element_wise(pa.scalar("/data/pairs/images"), images, "/")
    numbers = pa.array(range(start + 1, start + len(ids) + 1), pa.int64())
    nothing = pa.nulls(len(ids), pa.string())
    listing = pa.table([numbers, images, raw, paths, nothing, nothing], schema=SOURCE_ROWS)
    content = hashlib.sha256("\n".join(raw.to_pylist()).encode()).hexdigest()[:16]
    configuration = {"shard": shard, "reader": factory.config.pairs.fingerprinted(), "rows": content}
    plan = Plan(kind="shards", name=(source, shard), code_version=SHARDS_VERSION, configuration=configuration)
    with writer.writing(plan) as draft:
        write_table(listing, draft.folder / "rows.parquet")
        draft.summary = {"rows": len(ids)}
    identities = pa.array([pair_identity(*pair) for pair in zip(ids.to_pylist(), raw.to_pylist(), strict=True)])
    pixels = pa.array(np.full(len(ids), 224, np.int32))
    hashes = pa.array(np.zeros(len(ids), np.uint64))  # as of plain colours, which count as similar to nothing
    table = pa.table([identities, ids, images, paths, raw, pixels, pixels, numbers, hashes], schema=PAIRS)
    plan = Plan(
        kind="raw_pairs",
        name=(source, shard),
        code_version=PAIRS_VERSION,
        configuration={"shard": shard},
        inputs=(draft.record,),
    )
    with writer.writing(plan) as draft:
        write_table(table, draft.folder / "pairs.parquet")
        write_failures([], draft.folder)
        draft.rows = RowCount(rows_in=len(ids), rows_out=len(ids), rows_failed=0, unit="rows of the source")
        draft.summary = {"pairs": len(ids), "images": len(ids)}
    return draft.record


def _captions(
    factory: Factory,
    writer: Writer,
    shard: str,
    captioner: str,
    ids: pa.Array,
    images: pa.Array,
    texts: pa.Array,
    pairs: InputRecord,
) -> InputRecord:
    """A captioner's captions of a shard, and the shear of them; the sheared ones' record."""
    settings = factory.config.captioners[captioner]
    identity = captioner_fingerprint(settings)
    offset = CAPTIONERS.index(captioner) * 7
    failed = [row for row in range(len(ids)) if row % _FAILED == offset]
    kept = pa.array([row for row in range(len(ids)) if row % _FAILED != offset])
    count = len(kept)
    table = pa.table(
        [
            ids.take(kept),
            pa.array([captioner] * count),
            pa.array([identity] * count),
            texts.take(kept),
            pc.cast(pc.divide(pc.binary_length(texts.take(kept)), 4), pa.int32()),
            pa.array(["stop"] * count),
            pa.array(np.full(count, 0.1, np.float32)),
            pa.array(np.ones(count, np.int32)),
            pa.nulls(count, pa.string()),
        ],
        schema=CAPTIONS,
    )
    plan = Plan(
        kind="captions",
        name=(captioner, identity, shard),
        code_version=CAPTIONS_VERSION,
        configuration={
            "captioner": captioner,
            "captioner_fingerprint": identity,
            "shard": shard,
            "settings": settings.fingerprinted(),
        },
        inputs=(pairs,),
    )
    with writer.writing(plan) as draft:
        write_table(table, draft.folder / "captions.parquet")
        rows = [_failure(ids[row].as_py(), images[row].as_py()) for row in failed]
        write_failures(rows, draft.folder)
        reasons = {"generation_failed": len(failed)} if failed else {}
        draft.rows = RowCount(rows_in=len(ids), rows_out=count, rows_failed=len(failed), unit="images", reasons=reasons)
    steps = factory.config.shear_steps("first-sentence")
    plan = Plan(
        kind="sheared",
        name=(captioner, shear_fingerprint(steps), shard),
        code_version=SHEAR_VERSION,
        configuration={"captioner": captioner, "steps": [step.model_dump(mode="json") for step in steps]},
        inputs=(draft.record,),
    )
    with writer.writing(plan) as draft:
        sheared = shear_table(table, steps, Context(table["image_id"].to_pylist(), captioner, None, {}, None))
        write_table(sheared, draft.folder / "sheared.parquet")
        draft.rows = RowCount(rows_in=count, rows_out=count, rows_failed=0, unit="captions")
    return draft.record


def _failure(image_id: str, image: str) -> dict[str, Any]:
    detail = f"{image}: the model gave no text."
    return {
        "stage": "captions",
        "key": image_id,
        "image": image,
        "reason": "generation_failed",
        "detail": detail,
        "attempt": 3,
    }
