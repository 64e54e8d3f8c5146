"""A source without the rows that later shards hold: what was left when a shard was cut."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from caploom.readers.registry import Reader
from caploom.readers.source_row import SourceRow
from caploom.stages.shards import row_digest, shard_rows
from caploom.storage.store import Artifact


class RemainingRows:
    """Reads like the reader, but passes over as many rows of each content as the later shards hold, last ones first.

    A row that says what another said before belongs to the earlier shard: the first occurrences stay.
    """

    def __init__(self, reader: Reader, later: Sequence[Artifact]) -> None:
        self._reader = reader
        self._later = later

    def fingerprinted(self) -> dict[str, Any]:
        """The reader's own: it is the same source."""
        return self._reader.fingerprinted()

    def rows(self) -> Iterator[SourceRow]:
        """The rows, in their order."""
        held = Counter(row_digest(row) for shard in self._later for row in shard_rows(shard))
        here = Counter(digest for row in self._reader.rows() if (digest := row_digest(row)) in held)
        seen = Counter[bytes]()
        for row in self._reader.rows():
            digest = row_digest(row)
            seen[digest] += 1
            if seen[digest] <= here[digest] - held[digest] or digest not in held:
                yield row
