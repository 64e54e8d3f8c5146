"""The `raw_pairs` stage: every row of a shard becomes a pair whose image really decodes, or a failure row."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from caploom.factory import Factory
from caploom.images import ImageFault, decode_image, read_image_file
from caploom.lineage.fingerprints import content_version
from caploom.progress import Progress
from caploom.readers.shards import shard_listing, shard_names, shard_rows, source_of
from caploom.readers.source_row import SourceRow
from caploom.records import PAIRS, image_identity, pair_identity
from caploom.store import Artifact, Draft, Plan
from caploom.tables import count_rows, failure, read_table, table_of, write_failures, write_table

KIND = "raw_pairs"
CODE_VERSION = "1"


def raw_pairs_plan(factory: Factory, shard: str) -> Plan:
    """The plan of a shard's raw pairs."""
    return raw_pairs_stage(factory, shard).of([shard_listing(factory, shard).as_input()])


def raw_pairs_stage(factory: Factory, shard: str) -> Plan:
    """The same without the inputs: what the configuration alone says."""
    return Plan(
        kind=KIND,
        name=(source_of(factory, shard), shard),
        code_version=CODE_VERSION,
        configuration={"shard": shard},
    )


def ingest_shard(factory: Factory, shard: str, progress: Progress | None = None) -> Artifact:
    """Make a shard's raw pairs, unless they are made: `pairs.parquet` (schema PAIRS) and `failures.parquet`."""
    listing = shard_listing(factory, shard)

    def build(draft: Draft) -> None:
        rows = list(shard_rows(listing))
        pairs, failures = validate_rows(rows, _pairs_of_other_shards(factory, shard), progress)
        table = table_of(pairs, PAIRS)
        write_table(table, draft.folder / "pairs.parquet")
        write_failures(failures, draft.folder)
        draft.rows = count_rows("rows of the source", len(rows), len(pairs), failures)
        draft.data_version = content_version(
            [*(pair["pair_id"] for pair in pairs), *(f"{f['key']}\t{f['reason']}" for f in failures)]
        )
        draft.summary = {"pairs": len(pairs), "images": len({pair["image_id"] for pair in pairs})}

    return factory.store.make(raw_pairs_plan(factory, shard), build)


def ingested_shards(factory: Factory) -> list[Artifact]:
    """The present raw pairs of every shard that has been ingested, in the shards' order; older versions don't count."""
    found = (factory.store.find(raw_pairs_plan(factory, shard)) for shard in shard_names(factory))
    return [artifact for artifact in found if artifact is not None]


def validate_rows(
    rows: Sequence[SourceRow], elsewhere: "OtherPairs | None" = None, progress: Progress | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Really decode each row's image; returns the pairs (as PAIRS) and the failures, together as many as the rows."""
    pairs: dict[str, dict[str, Any]] = {}
    failures: list[dict[str, Any]] = []
    for done, row in enumerate(rows, start=1):
        try:
            pair = _pair(row)
            if pair["pair_id"] in pairs:
                first = pairs[pair["pair_id"]]["row"]
                raise ImageFault(
                    "duplicate_pair",
                    f"row {row.row}: the same image with the same caption already stands in row {first}.",
                )
            pairs[pair["pair_id"]] = pair
        except ImageFault as fault:
            failures.append(failure(KIND, str(row.row), row.image, fault.reason, fault.detail))
        if progress is not None:
            progress(done, len(rows))
    for pair_id, where in (elsewhere.find(list(pairs)) if elsewhere else {}).items():
        pair = pairs.pop(pair_id)
        detail = f"row {pair['row']}: the same image with the same caption already stands in {where}."
        failures.append(failure(KIND, str(pair["row"]), pair["image"], "duplicate_pair", detail))
    return list(pairs.values()), failures


def _pair(row: SourceRow) -> dict[str, Any]:
    if row.reason is not None or row.path is None or row.caption is None:
        raise ImageFault(row.reason or "bad_row", row.detail or f"row {row.row}: it names no image.")
    data = read_image_file(Path(row.path))
    image = decode_image(data, row.path)
    image_id = image_identity(data)
    return {
        "pair_id": pair_identity(image_id, row.caption),
        "image_id": image_id,
        "image": row.image,
        "path": row.path,
        "raw_caption": row.caption,
        "width": image.width,
        "height": image.height,
        "row": row.row,
    }


class OtherPairs:
    """Looks pairs up among those of other shards, without holding those in memory."""

    def __init__(self, files: dict[str, str]) -> None:
        self._shard_of_file = files

    def find(self, pair_ids: list[str]) -> dict[str, str]:
        """Of these pairs, the ones that another shard holds, with that shard's name."""
        if not self._shard_of_file or not pair_ids:
            return {}
        with duckdb.connect() as connection:
            connection.register("wanted", pa.table({"pair_id": pair_ids}))
            rows = connection.execute(
                "select distinct pair_id, filename from read_parquet(?, filename = true)"
                " semi join wanted using (pair_id)",
                [list(self._shard_of_file)],
            ).fetchall()
        return {pair_id: self._shard_of_file[filename] for pair_id, filename in rows}


def _pairs_of_other_shards(factory: Factory, shard: str) -> OtherPairs:
    return OtherPairs(
        {
            str(artifact.file("pairs.parquet")): artifact.manifest.configuration["shard"]
            for artifact in ingested_shards(factory)
            if artifact.manifest.configuration["shard"] != shard
        }
    )


def read_pairs(artifact: Artifact) -> pa.Table:
    """The pairs of an ingested shard (schema PAIRS)."""
    return read_table(artifact.file("pairs.parquet"))


def raw_lengths(factory: Factory, shard: str | None = None) -> Counter[int]:
    """How many raw captions of a shard, or of all ingested shards, have how many words."""
    if shard is None:
        artifacts = ingested_shards(factory)
    else:
        plan = raw_pairs_plan(factory, shard)
        artifacts = [factory.store.require(plan, make_with=f"materialize raw_pairs [{shard}]")]
    tables = (read_table(artifact.file("pairs.parquet"), ["raw_caption"]) for artifact in artifacts)
    return Counter(len(caption.split()) for table in tables for caption in table.column("raw_caption").to_pylist())
