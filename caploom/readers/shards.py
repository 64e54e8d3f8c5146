"""Cuts the source into shards: each row belongs to one shard for good, so that new rows cost only themselves."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from caploom.errors import StoreError
from caploom.factory import Factory
from caploom.lineage.fingerprints import fingerprint
from caploom.readers.source_row import SourceRow
from caploom.records import SOURCE_ROWS
from caploom.store import Artifact, Plan
from caploom.tables import read_table, table_of, write_table

KIND = "shards"
CODE_VERSION = "1"


def source_fingerprint(factory: Factory) -> str:
    """Hash of the source's configuration: another source has shards of its own."""
    return fingerprint(factory.config.pairs.fingerprinted())


def cut_new_shards(factory: Factory) -> list[str]:
    """Read the source and cut the rows that no shard holds yet into new shards; returns the names of the new ones.

    An unchanged source gives none.
    """
    pending: list[SourceRow] = []
    made: list[str] = []
    number = len(list_shards(factory))
    for row in new_rows(factory):
        pending.append(row)
        if len(pending) == factory.config.shard_size:
            made.append(_write(factory, number + len(made), pending))
            pending = []
    if pending:
        made.append(_write(factory, number + len(made), pending))
    return made


def new_rows(factory: Factory) -> Iterator[SourceRow]:
    """The rows of the source that no shard holds yet, in the source's order.

    A row is recognised by what it says (image path, caption, what is wrong with it) and by how often it says so, never
    by its position: rows inserted before it don't make it new.
    """
    seen: Counter[bytes] = Counter()
    for shard in list_shards(factory):
        for row in shard_rows(shard):
            seen[row_digest(row)] += 1
    occurrences = Counter[bytes]()
    for row in factory.config.pairs.rows():
        digest = row_digest(row)
        occurrences[digest] += 1
        if occurrences[digest] > seen[digest]:
            yield row


def list_shards(factory: Factory) -> list[Artifact]:
    """The listing of every shard of the configured source, in their order."""
    return factory.store.list(KIND, source_fingerprint(factory))


def shard_names(factory: Factory) -> list[str]:
    """The names of all shards, in their order."""
    return [shard.manifest.configuration["shard"] for shard in list_shards(factory)]


def shard_listing(factory: Factory, shard: str) -> Artifact:
    """The listing of one shard; raises `StoreError` when there is no such shard."""
    found = factory.store.list(KIND, source_fingerprint(factory), shard)
    if not found:
        raise StoreError(
            f'There is no shard "{shard}" in {factory.store.root}; the sensor or a run cuts the shards first.'
        )
    return found[0]


def shard_rows(listing: Artifact) -> Iterator[SourceRow]:
    """The rows of the source in a shard."""
    for record in read_table(listing.file("rows.parquet")).to_pylist():
        yield SourceRow(**record)


def _write(factory: Factory, number: int, rows: list[SourceRow]) -> str:
    shard = f"shard-{number:05d}"
    table = table_of((asdict(row) for row in rows), SOURCE_ROWS)
    content = hashlib.sha256(b"".join(row_digest(row) for row in rows)).hexdigest()[:16]
    plan = Plan(
        kind=KIND,
        name=(source_fingerprint(factory), shard),
        code_version=CODE_VERSION,
        configuration={"shard": shard, "reader": factory.config.pairs.fingerprinted(), "rows": content},
    )
    with factory.store.writing(plan) as draft:
        write_table(table, draft.folder / "rows.parquet")
        draft.data_version = content
        draft.summary = {"rows": len(rows)}
    return shard


def row_digest(row: SourceRow) -> bytes:
    """What a row says, whatever its position: 16 bytes."""
    text = "\0".join((row.image, row.caption or "", row.reason or "", row.path or ""))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
