"""Tables of raw pairs and of captioners, large enough to need many buckets, as artifacts of a store."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from caploom.storage.store import Artifact, Draft, Plan, Store
from caploom.storage.tables import write_table
from caploom.training_set.order import image_ids

SHARD = 10_000
_WORDS = np.array([f"word{number}" for number in range(2_000)], object)


def tables(images: int, captioners: int, words: int = 20) -> Iterator[tuple[str | None, pa.Table]]:
    """Shard by shard, for raw pairs (None) and each captioner; some captions come again in another shard."""
    rng = np.random.default_rng(0)
    last = None
    for start in range(0, images, SHARD):
        count = min(SHARD, images - start)
        ids = image_ids(rng.integers(0, 256, (count, 32), dtype=np.uint8))
        if last is not None:  # an image in two shards
            ids = pa.concat_arrays([last.slice(0, 10), ids.slice(10)])
        last = ids
        names = pa.array([f"{number}.jpg" for number in range(start, start + count)])
        paths = pa.array([f"/data/{number}.jpg" for number in range(start, start + count)])
        yield None, pa.table({"image_id": ids, "image": names, "path": paths, "raw_caption": texts(rng, count, words)})
        for number in range(captioners):
            said = texts(rng, count, words)
            counts = pa.array(np.full(count, words, np.int32))
            yield f"c{number}", pa.table({"image_id": ids, "caption": said, "words": counts})


def texts(rng: np.random.Generator, count: int, words: int) -> pa.Array:
    drawn = _WORDS[rng.integers(0, len(_WORDS), (count, words))]
    return pa.array([" ".join(row) for row in drawn])


def write_tables(folder: Path, images: int, captioners: int, words: int = 20) -> None:
    """The same as files: `pairs-*.parquet`, `c0-*.parquet`, ..."""
    folder.mkdir()
    for number, (captioner, table) in enumerate(tables(images, captioners, words)):
        write_table(table, folder / f"{captioner or 'pairs'}-{number:05d}.parquet")


def artifacts_of(store: Store, images: int, captioners: int) -> tuple[list[Artifact], list[Artifact]]:
    """The same as artifacts: the raw pairs, and the captioners'."""
    pairs, sheared = [], []
    for number, (captioner, table) in enumerate(tables(images, captioners)):
        configuration = {"captioner": captioner} if captioner else {}
        plan = Plan(kind="large", name=(str(number),), code_version="1", configuration=configuration)
        name = "pairs.parquet" if captioner is None else "sheared.parquet"

        def build(draft: Draft, table: pa.Table = table, name: str = name) -> None:
            write_table(table, draft.folder / name)

        (pairs if captioner is None else sheared).append(store.make(plan, build))
    return pairs, sheared
