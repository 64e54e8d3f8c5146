"""The source of a factory as its store knows it: a source that moved keeps the identity under which it was first read.

The hash of a reader's settings, paths among them, is the identity of its shards. Where the store has none under the
present hash, it may have them under that of the place where the source lay before: then that one counts, for good.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caploom.common.hashing import fingerprint
from caploom.config.factory import Factory
from caploom.errors import CaploomError
from caploom.images.moves import STAYED, Folders, Moves
from caploom.readers.moved import are_these_images, differs_in_place_only, is_still_there, moved_folders, moved_pictures
from caploom.readers.source_row import SourceRow
from caploom.stages.source_rows import are_held_exactly, row_digest, shard_rows
from caploom.storage.store import Artifact, Store
from caploom.storage.tables import read_first
from caploom.storage.view import StoreView

_SHARDS, _PAIRS, _INBOX = "shards", "raw_pairs", "inbox"
_REWRITING = frozenset({"rewrite"})
"""Rules for paths in a user's file may change with the place: rows are compared with the paths that came of them."""
_SAMPLED = 4  # images whose bytes are compared before another place is taken for the same source


@dataclass(frozen=True)
class KnownSource:
    """A source under its identity in a store.

    Attributes:
        fingerprint: what its shards lie below.
        reader: the settings of its reader that this is the hash of.
        has_moved: whether the reader's present settings are others.
    """

    fingerprint: str
    reader: Mapping[str, Any]
    has_moved: bool = False


def known_source(factory: Factory, view: StoreView | None = None) -> KnownSource:
    """The factory's source; one that moved is recognised by its rows and some of its images.

    Nothing is written. The source is read only where the store has no shard of the present settings, but some of
    settings that differ in place alone: as long as the other place is there too, it must have exactly their rows, and
    else most rows of the first of them.
    """
    reader, store = factory.config.pairs, factory.store
    assert reader is not None
    settings = reader.fingerprinted()
    exact = fingerprint(settings)
    (view or StoreView(store)).refresh(_SHARDS)
    others = [name for name in _names(store, _SHARDS) if name != _INBOX]
    if not reader.locations or not others or _names(store, f"{_SHARDS}/{exact}"):
        return KnownSource(exact, settings)
    noted = _noted(store, exact)
    view = StoreView(store)  # of its own: what the caller's has listed it won't list again
    for source in [noted] if noted is not None else others:
        listing = _first_listing(view, source)
        recorded = listing.manifest.configuration.get("reader", {}) if listing is not None else {}
        if listing is None or not differs_in_place_only(reader, recorded, besides=_REWRITING):
            continue
        if noted is not None or _is_same(factory, view, source, listing):
            return KnownSource(source, recorded, has_moved=True)
    return KnownSource(exact, settings)


def note_move(factory: Factory, source: KnownSource) -> None:
    """Record that a source has moved, so that it is not recognised by its rows again: they may change."""
    if not source.has_moved or factory.config.pairs is None:
        return
    exact = fingerprint(factory.config.pairs.fingerprinted())
    if _noted(factory.store, exact) is None:
        note = _note(factory.store, exact)
        note.parent.mkdir(parents=True, exist_ok=True)
        factory.store.put_shared(note, json.dumps({"same_source_as": source.fingerprint}).encode())


def source_moves(factory: Factory, source: KnownSource, view: StoreView | None = None) -> Moves:
    """Where the images of a source lie, by where they are recorded to."""
    reader, view = factory.config.pairs, view or StoreView(factory.store)
    assert reader is not None
    if "folder" not in reader.locations:
        return Moves(moved_folders(reader, source.reader)) if reader.locations else STAYED
    listing = _first_listing(view, source.fingerprint)
    first = next((row for row in shard_rows(listing) if row.path), None) if listing is not None else None
    return Moves(moved_pictures(reader, first.image, str(first.path))) if first is not None else STAYED


def rows_as_recorded(factory: Factory, moves: Moves) -> Iterator[SourceRow]:
    """The source's rows, their paths as they would have been recorded when it was first read."""
    assert factory.config.pairs is not None
    for row in factory.config.pairs.rows():
        yield replace(row, path=moves.recorded(row.path)) if row.path is not None else row


def inbox_moves(factory: Factory) -> Folders:
    """The folders of the inbox, past and present: (as recorded, at present)."""
    if factory.config.inbox is None:
        return ()
    watched = {folder: folder for folder in factory.config.inbox.folders}
    return tuple({**watched, **_inbox_note(factory.store)}.items())


def note_inbox_move(store: Store, before: str, now: str) -> None:
    """Record that a folder of the inbox is another one now, and so is what had been it before."""
    noted = {folder: now if last == before else last for folder, last in _inbox_note(store).items() if folder != now}
    note = _note(store, _INBOX)
    note.parent.mkdir(parents=True, exist_ok=True)
    store.put_shared(note, json.dumps({**noted, before: now}).encode())


def _inbox_note(store: Store) -> dict[str, str]:
    note = _note(store, _INBOX)
    store.pull_shared(f"{_SHARDS}/{_INBOX}/{note.name}")
    try:
        return dict(json.loads(note.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _noted(store: Store, exact: str) -> str | None:
    note = _note(store, exact)
    store.pull_shared(f"{_SHARDS}/{exact}/{note.name}")
    try:
        return str(json.loads(note.read_bytes())["same_source_as"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _note(store: Store, exact: str) -> Path:
    return store.path(f"{_SHARDS}/{exact}") / ".moved.json"


def _names(store: Store, address: str) -> list[str]:
    """The names of what lies right below an address, without a look into it."""
    try:
        return sorted(each.name for each in store.path(address).iterdir() if not each.name.startswith("."))
    except FileNotFoundError:
        return []


def _first_listing(view: StoreView, source: str) -> Artifact | None:
    """The listing of a source's first shard; None where it has none."""
    return next(iter(view.readable(_SHARDS, source, None)), None)


def _is_same(factory: Factory, view: StoreView, source: str, listing: Artifact) -> bool:
    """Whether the shards that begin with this one are the present source's, which lay somewhere else."""
    reader, recorded = factory.config.pairs, listing.manifest.configuration["reader"]
    assert reader is not None
    moves = Moves(moved_folders(reader, recorded))
    try:
        # While the other place is there, both may be sources of their own, and one a part of the other.
        if is_still_there(reader, recorded):
            same = are_held_exactly(rows_as_recorded(factory, moves), view.artifacts(_SHARDS, source, None))
        else:
            same = _are_mostly_there(list(shard_rows(listing)), rows_as_recorded(factory, moves))
    except CaploomError:
        return False  # whoever reads the source next says what is wrong with it
    return same and _has_same_images(view, listing, moves)


def _are_mostly_there(held: list[SourceRow], rows: Iterator[SourceRow]) -> bool:
    """Whether most of these rows are in the source, which is read no further than that."""
    missing = Counter(map(row_digest, held))
    found = 0
    for digest in map(row_digest, rows):
        if missing[digest]:
            missing[digest] -= 1
            found += 1
            if 2 * found > len(held):
                return True
    return False


def _has_same_images(view: StoreView, listing: Artifact, moves: Moves) -> bool:
    """Whether some images of a shard have the bytes that were ingested; True where it is not ingested."""
    _, source, shard, _ = listing.manifest.address.split("/")
    pairs = next(iter(view.readable(_PAIRS, source, shard)), None)
    if pairs is None:
        return True
    ingested = read_first(pairs.file("pairs.parquet"), _SAMPLED).to_pylist()
    # Not where the pairs have them: that may be a copy in the store, which moves with it.
    places = {(row.row, row.image): row.path for row in shard_rows(listing)}
    named = ((pair["image_id"], places.get((pair["row"], pair["image"]))) for pair in ingested)
    return not ingested or are_these_images((identity, moves.present(path)) for identity, path in named if path)
