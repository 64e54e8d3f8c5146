"""Whether a shard's images have captions already, among those of all shards: by the ledger, and by reading all tables.

The tables hold the keys alone, of which each is another one.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.child import Done, Job
from caploom.captioning.ledger import Ledger
from caploom.storage.key_index import INDEX_FILE
from caploom.storage.manifest import Manifest
from caploom.storage.opening import open_store
from caploom.storage.store import Plan, Store

KEYS = 1_000  # of a shard
FINGERPRINT = "f" * 16
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def write_ledger(folder: Path, shards: int) -> None:
    """The finished shards of one captioner, of which a shard has `KEYS` images."""
    shutil.rmtree(folder, ignore_errors=True)
    store = open_store(folder)
    for number in range(shards):
        shard = f"shard-{number:05d}"
        plan = Plan(kind="captions", name=("any", FINGERPRINT, shard), code_version="1", configuration={"shard": shard})
        target = store.path(plan.address)
        target.mkdir(parents=True)
        pq.write_table(pa.table({"image_id": image_ids(number)}), target / "captions.parquet", compression="zstd")
        manifest = Manifest(
            kind=plan.kind,
            address=plan.address,
            fingerprint=plan.fingerprint,
            data_version="",
            code_version=plan.code_version,
            configuration=plan.configuration,
            started="",
            seconds=0.0,
        )
        (target / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
        before = time.time() - 60  # so long ago that nobody can be writing there still
        os.utime(target.parent, (before, before))


def image_ids(shard: int) -> list[str]:
    """The identities of a shard's images: 64 hexadecimal digits each."""
    drawn = np.random.default_rng(shard).integers(0, 16, (KEYS, 64))
    return [row.tobytes().decode() for row in _DIGITS[drawn]]


def ledger(job: Job) -> Done:
    """The ledger's answers; before the first one it writes the keys down."""
    root = _root(job)
    for left_over in root.rglob(f"{INDEX_FILE}*"):
        left_over.unlink()
    asked = Ledger(Store(root), "any", FINGERPRINT)
    done = _ask(job, asked.missing)
    sizes = [path.stat().st_size for path in root.rglob(INDEX_FILE)]
    return Done(done.count, {**done.result, "index_mb": sum(sizes) / 1e6})


def scan(job: Job) -> Done:
    """DuckDB's, which reads the keys of every table for every question."""
    pattern = f"{_root(job)}/captions/*/{FINGERPRINT}/*/*/captions.parquet"

    def missing(image_ids: list[str]) -> list[str]:
        with duckdb.connect() as connection:
            connection.register("wanted", pa.table({"image_id": image_ids}))
            query = "select image_id from wanted anti join read_parquet(?) using (image_id)"
            return [image_id for (image_id,) in connection.execute(query, [pattern]).fetchall()]

    return _ask(job, missing)


def _ask(job: Job, missing: Callable[[list[str]], list[str]]) -> Done:
    shards = job.options["shards"]
    new, known = image_ids(shards), image_ids(shards // 2)
    seconds = {}
    with job.measured():
        for name, asked, expected in (("first", new, new), ("new_images", new, new), ("known_images", known, [])):
            began = time.perf_counter()
            answer = missing(asked)
            seconds[f"{name}_s"] = time.perf_counter() - began
            assert sorted(answer) == sorted(expected), name
    return Done(shards * KEYS, seconds)


def _root(job: Job) -> Path:
    return job.folder / f"ledger-{job.options['shards']}"
