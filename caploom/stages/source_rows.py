"""The rows of a shard's listing, and what identifies a row of a source."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest

from caploom.readers.source_row import SourceRow
from caploom.storage.store import Artifact
from caploom.storage.tables import read_table


def shard_rows(listing: Artifact) -> Iterator[SourceRow]:
    """The rows of the source in a shard; their paths are the recorded ones."""
    for record in read_table(listing.file("rows.parquet")).to_pylist():
        yield SourceRow(**record)


def row_digest(row: SourceRow) -> bytes:
    """What a row says, whatever its position: 16 bytes."""
    text = "\0".join((row.image, row.caption or "", row.reason or "", row.path or ""))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def unheld_rows(rows: Iterable[SourceRow], listings: Sequence[Artifact]) -> Iterator[SourceRow]:
    """The rows that none of these shards holds, in their order."""
    held, coming = _digests(listings), iter(rows)
    # Mostly a source has the rows of its shards in their order, and new ones after them: so far nothing is remembered.
    for row, digest in zip_longest(coming, held):
        if row is None:
            return
        if digest is None:
            yield row
        elif row_digest(row) != digest:
            left = Counter(chain([digest], held))
            yield from _not_among(left, chain([row], coming))
            return


def are_held_exactly(rows: Iterable[SourceRow], listings: Sequence[Artifact]) -> bool:
    """Whether these shards hold these rows, each as often, and no others."""
    held, coming = _digests(listings), map(row_digest, rows)
    for digest, other in zip_longest(coming, held):
        if digest is None or other is None:
            return False
        if digest != other:
            return Counter(chain([digest], coming)) == Counter(chain([other], held))
    return True


def _digests(listings: Sequence[Artifact]) -> Iterator[bytes]:
    return (row_digest(row) for listing in listings for row in shard_rows(listing))


def _not_among(held: Counter[bytes], rows: Iterable[SourceRow]) -> Iterator[SourceRow]:
    """The rows that are more often there than held."""
    for row in rows:
        digest = row_digest(row)
        if held[digest]:
            held[digest] -= 1
        else:
            yield row
