"""How long a resumed run needs to find out what is missing: the ledger's look-up among many finished captions."""

import hashlib
import random
from pathlib import Path

import pyarrow as pa

from benchmarks.child import Done, Job
from caploom.captioning.ledger import KIND, Ledger
from caploom.demo.world import BACKGROUNDS, THINGS
from caploom.storage.opening import open_store
from caploom.storage.records import CAPTIONS
from caploom.storage.store import Draft, Plan, Store
from caploom.storage.tables import write_table

SHARD_ROWS = 10_000
_STORE = "ledger"
_FINGERPRINT = hashlib.sha256(b"benchmark").hexdigest()


def write_ledger(folder: Path, rows: int, *, seed: int = 0) -> None:
    """Write the finished captions of `rows` images, 10,000 a shard, as the captions stage leaves them."""
    store = open_store(folder / _STORE)
    chance = random.Random(seed)
    for start in range(0, rows, SHARD_ROWS):
        shard = f"shard-{start // SHARD_ROWS:05d}"
        count = min(SHARD_ROWS, rows - start)
        table = pa.table(
            {
                "image_id": [_image_id(number) for number in range(start, start + count)],
                "captioner": ["captioner"] * count,
                "fingerprint": [_FINGERPRINT] * count,
                "text": [_text(chance) for _ in range(count)],
                "tokens": [chance.randint(20, 30) for _ in range(count)],
                "finish_reason": ["length"] * count,
                "seconds": [chance.uniform(0.01, 0.02) for _ in range(count)],
                "attempt": [1] * count,
                "pair_id": pa.nulls(count, pa.string()),
            }
        )

        def build(draft: Draft, table: pa.Table = table) -> None:
            write_table(table.cast(CAPTIONS), draft.folder / "captions.parquet")

        plan = Plan(kind=KIND, name=("captioner", _FINGERPRINT, shard), code_version="1", configuration={})
        store.make(plan, build)


def run(job: Job) -> Done:
    """Options: rows, missing. As many images as the ledger has rows are asked for; `missing` of them are not there."""
    rows, missing = job.options["rows"], job.options["missing"]
    wanted = [_image_id(number) for number in range(missing, rows + missing)]
    ledger = Ledger(Store(job.folder / _STORE), "captioner", _FINGERPRINT)
    with job.measured():
        found = ledger.missing(wanted)
    return Done(rows, {"rows": rows, "right": found == wanted[-missing:]})


def _image_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _text(chance: random.Random) -> str:
    first, second, third, fourth = (thing.name for thing in chance.choices(THINGS, k=4))
    background = chance.choice(BACKGROUNDS).phrase
    return (
        f"A {first} and a {second} are {background}. There is also a {third} in the background. "
        f"The presence of a {fourth} makes the scene calm."
    )
