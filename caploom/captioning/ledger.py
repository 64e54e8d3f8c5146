"""The ledger: every caption ever generated, found by (image, captioner's fingerprint), and never generated twice.

Finished captions lie in the `captions` artifacts; those of a shard under way lie in parts beside them, one a batch,
each written whole or not at all. Together they are the ledger of a captioner. Parts are swept once their shard is done.
"""

import io
import shutil
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from caploom.records import CAPTIONS
from caploom.store import MANIFEST, Store, write_atomically
from caploom.tables import table_of

KIND = "captions"
_PENDING = "pending"


class Ledger:
    """The captions of one captioner's fingerprint, whatever the captioner was called when they were made."""

    def __init__(self, store: Store, captioner: str, fingerprint: str) -> None:
        self._captioner = captioner
        self._fingerprint = fingerprint
        self._kind_folder = store.path(KIND)
        self._pending = store.path(f"{KIND}/{captioner}/{fingerprint}/{_PENDING}")

    def find(self, image_ids: Sequence[str]) -> pa.Table:
        """The captions (schema CAPTIONS) that these images have already, one an image."""
        # A hidden folder is an artifact that a process is writing, or was killed while writing: it counts for nothing.
        files = [
            str(path)
            for path in self._kind_folder.glob(f"*/{self._fingerprint}/*/[!.]*/captions.parquet")
            if path.with_name(MANIFEST).is_file()
        ]
        files += [str(path) for path in self._kind_folder.glob(f"*/{self._fingerprint}/{_PENDING}/*/*.parquet")]
        if not files or not image_ids:
            return CAPTIONS.empty_table()
        with duckdb.connect() as connection:
            connection.register("wanted", pa.table({"image_id": list(image_ids)}))
            columns = ", ".join(f"any_value({name}) as {name}" for name in CAPTIONS.names if name != "image_id")
            found = connection.sql(
                f"select image_id, {columns} from read_parquet(?) semi join wanted using (image_id) group by image_id",
                params=[files],
            ).to_arrow_table()
        table = found.select(CAPTIONS.names).cast(CAPTIONS)
        return table.set_column(1, CAPTIONS.field("captioner"), pa.array([self._captioner] * len(table), pa.string()))

    def append(self, shard: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the captions of one batch, whatever happens next."""
        if not rows:
            return
        folder = self._pending / shard
        folder.mkdir(parents=True, exist_ok=True)
        part = io.BytesIO()
        pq.write_table(table_of(rows, CAPTIONS), part)
        write_atomically(folder / f"{uuid.uuid4().hex}.parquet", part.getvalue())

    def sweep(self, shard: str) -> None:
        """Delete the parts of a shard whose artifact is finished (it holds the same rows)."""
        shutil.rmtree(self._pending / shard, ignore_errors=True)
