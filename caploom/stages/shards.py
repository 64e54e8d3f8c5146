"""Cuts the source into shards: each row belongs to one shard for good, so that new rows cost only themselves."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from caploom.common.locks import one_at_a_time
from caploom.config.factory import Factory
from caploom.errors import StoreError
from caploom.readers.source_row import SourceRow
from caploom.readers.source_state import SourceState, remember_as_read, source_state, was_read
from caploom.stages.graph import Graph
from caploom.stages.known_source import KnownSource, known_source, note_move, rows_as_recorded, source_moves
from caploom.stages.source_rows import row_digest, unheld_rows
from caploom.stages.stage import Key, Ref, Stage
from caploom.stages.words import plain
from caploom.storage.records import INBOX_FILES, SOURCE_ROWS
from caploom.storage.store import Artifact, Plan
from caploom.storage.tables import table_of, write_table
from caploom.storage.view import StoreView

KIND = "shards"
CODE_VERSION = "1"


INBOX = "inbox"
"""Stands where another shard has the fingerprint of its source: an inbox is the same whatever its settings."""


def source_fingerprint(factory: Factory | Graph) -> str:
    """The identity of the source: another source has shards of its own, and one that moved is the same.

    A factory may have an inbox alone.
    """
    source = source_in(factory) if isinstance(factory, Graph) else _source_of(factory)
    return source.fingerprint if source is not None else INBOX


def source_in(graph: Graph) -> KnownSource | None:
    """The source of a graph's factory as the store knows it, looked up once."""
    return graph.fact(("source",), lambda: _source_of(graph.factory, graph.view))


def _source_of(factory: Factory, view: StoreView | None = None) -> KnownSource | None:
    return known_source(factory, view) if factory.config.pairs is not None else None


def source_of(factory: Factory | Graph, shard: str) -> str:
    """What stands between the kind and the shard in the address of a shard's listing and of its raw pairs."""
    return INBOX if is_of_inbox(shard) else source_fingerprint(factory)


def is_of_inbox(shard: str) -> bool:
    """Whether a shard is one of the inbox's."""
    return shard.startswith(f"{INBOX}-")


def source_and_shard(graph: Graph, key: Key) -> Key:
    """The name of a shard's listing and of its raw pairs."""
    return (source_of(graph, key[0]), key[0])


def create_new_shards(factory: Factory) -> list[str]:
    """Read the source and cut the rows that no shard holds yet into new shards; returns the names of the new ones.

    An unchanged source gives none, and mostly isn't read. Raises `SourceError` when it cannot be read.
    """
    if factory.config.pairs is None:
        return []
    made: list[str] = []
    with one_at_a_time(sharding_lock(factory), "Another process is cutting shards of this source; waiting for it."):
        source = known_source(factory)
        note_move(factory, source)
        configuration = {"reader": dict(source.reader)}
        state = source_state(factory.config.pairs)  # before it is read: what is written to it meanwhile is news again
        listings = list_shards(factory, source.fingerprint)
        number = next_number(listings)
        rows = _new_rows(factory, source)
        while pending := list(islice(rows, factory.config.shard_size)):
            shard = f"shard-{number + len(made):05d}"
            made.append(write_shard(factory, shard, pending, configuration, source=source.fingerprint))
        remember_as_read(factory.store, f"{KIND}/{source.fingerprint}", state, len(listings) + len(made))
    return made


def unread_state(factory: Factory) -> SourceState | None:
    """The state of the source that `create_new_shards` would read; None of one that it wouldn't, or that has no state.

    Raises `SourceError` when a file of the source is not there.
    """
    state = source_state(factory.config.pairs) if factory.config.pairs is not None else None
    if state is None:
        return None
    source = source_fingerprint(factory)
    cut = len(list_shards(factory, source))
    return None if was_read(factory.store, f"{KIND}/{source}", state, cut) else state


def sharding_lock(factory: Factory) -> Path:
    """The lock of whoever cuts shards: two at once would give one name to different rows."""
    folder = factory.store.path(KIND)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / ".cutting.lock"


def new_rows(factory: Factory) -> Iterator[SourceRow]:
    """The rows of the source that no shard holds yet, in the source's order.

    A row is recognised by what it says (image path, caption, what is wrong with it) and by how often it says so, never
    by its position: rows inserted before it don't make it new. Of a source that moved, paths are as recorded before.
    """
    if factory.config.pairs is not None:
        yield from _new_rows(factory, known_source(factory))


def _new_rows(factory: Factory, source: KnownSource) -> Iterator[SourceRow]:
    assert factory.config.pairs is not None
    listings = list_shards(factory, source.fingerprint)
    if was_read(factory.store, f"{KIND}/{source.fingerprint}", source_state(factory.config.pairs), len(listings)):
        return
    yield from unheld_rows(rows_as_recorded(factory, source_moves(factory, source)), listings)


def list_shards(factory: Factory, source: str | None = None) -> list[Artifact]:
    """The listing of every shard, in their order: the configured source's, then the inbox's; or of one of the two."""
    if source is not None:
        return factory.store.list(KIND, source)
    return [listing for each in sources_of(factory) for listing in factory.store.list(KIND, each)]


def sources_of(factory: Factory | Graph) -> list[str]:
    """What `source_of` may be of a shard: the configured source, and the inbox where there is one."""
    source = [source_fingerprint(factory)] if factory.config.pairs is not None else []
    return [*source, *([INBOX] if factory.config.inbox is not None else [])]


def next_number(listings: Sequence[Artifact]) -> int:
    """The number of the next shard after these."""
    numbers = (int(each.manifest.configuration["shard"].rpartition("-")[2]) for each in listings)
    return max(numbers, default=-1) + 1


def shard_names(factory: Factory) -> list[str]:
    """The names of all shards, in their order."""
    return [shard.manifest.configuration["shard"] for shard in list_shards(factory)]


def write_shard(
    factory: Factory,
    shard: str,
    rows: Sequence[SourceRow],
    configuration: Mapping[str, Any],
    files: Sequence[Mapping[str, Any]] | None = None,
    *,
    source: str | None = None,
) -> str:
    """Write a shard's listing: `rows.parquet` (SOURCE_ROWS) and, of an inbox, `files.parquet` (INBOX_FILES).

    `configuration` says where the rows come from; `source` is their source's identity, looked up unless it is known.
    Returns the shard's name. Raises `StoreError` when another machine gave the name to other rows.
    """
    source = source or source_of(factory, shard)
    content = hashlib.sha256(b"".join(row_digest(row) for row in rows)).hexdigest()[:16]
    plan = Plan(
        kind=KIND,
        name=(source, shard),
        code_version=CODE_VERSION,
        configuration={"shard": shard, **configuration, "rows": content},
    )
    with factory.store.writing(plan) as draft:
        write_table(_listing(rows), draft.folder / "rows.parquet")
        if files is not None:
            write_table(table_of(files, INBOX_FILES), draft.folder / "files.parquet")
        draft.data_version = content
        draft.summary = {"rows": len(rows)}
        if not factory.store.claim(f"{KIND}/{source}/{shard}", plan.fingerprint):
            raise StoreError(
                f"{shard}: another machine cuts shards into {factory.config.store} and gave this name to other rows; "
                "run again when it is done: no row is lost."
            )
    return shard


def _listing(rows: Sequence[SourceRow]) -> pa.Table:
    columns = {name: [getattr(row, name) for row in rows] for name in SOURCE_ROWS.names}
    return pa.table(columns, schema=SOURCE_ROWS)


def listings(graph: Graph) -> dict[str, Artifact]:
    """By shard, the listing of each, in their order: the configured source's, then the inbox's."""

    def listed() -> dict[str, Artifact]:
        found: dict[str, Artifact] = {}
        for source in sources_of(graph):
            for listing in graph.view.artifacts(KIND, source, None):
                found.setdefault(listing.manifest.configuration["shard"], listing)
        return found

    return graph.derived(Ref(KIND), listed)


def _reader_in_words(configuration: Mapping[str, Any]) -> str:
    reader = configuration["reader"]
    options = (f"{key} {plain(value)}" for key, value in reader.items() if key != "reader" and value is not None)
    return ", ".join([f"reader {reader['reader']}", *options])


def _source(graph: Graph, key: Key) -> dict[str, Any]:
    source = source_in(graph)
    return {"reader": dict(source.reader) if source is not None else {}}


SHARDS = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("shard",),
    keys=lambda graph: [(shard,) for shard in (*listings(graph), *graph.expected)],
    name=source_and_shard,
    name_parts=("#source", "shard"),
    look=lambda graph, key: listings(graph).get(key[0]),
    missing=lambda graph, key: (
        f'There is no shard "{key[0]}" in {graph.store.root}; the sensor or a run cuts the shards first.'
    ),
    hidden=True,
    label="rows of the source",
    absent="the source is not cut into shards yet (a run does it, or the sensor)",
    source=_source,
    shown=lambda configuration: {"pairs": configuration.get("reader")},
    words=_reader_in_words,
    cost=None,
    outcome_in_plan=True,
    remake="caploom.reproduce.remake:cut_shard",
)
