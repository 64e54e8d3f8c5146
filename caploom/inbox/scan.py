"""A look at the inbox: notices what changed, and cuts what is complete into new shards.

Whatever happens between two steps, the next look goes on: what a listing in the store holds is taken, and nothing else.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from math import inf

from filelock import FileLock, Timeout

from caploom.config.factory import Factory
from caploom.config.inbox import InboxSettings
from caploom.errors import SourceError
from caploom.inbox.candidates import Candidates, find_candidates
from caploom.inbox.journal import Journal
from caploom.inbox.listing import compare
from caploom.inbox.sharding import cut_files
from caploom.stages.graph import Graph
from caploom.stages.shards import INBOX, cutting_lock, list_shards
from caploom.stages.stage import Ref
from caploom.storage.paths import list_files
from caploom.storage.tables import read_table


@dataclass
class InboxLook:
    """What a look found.

    Attributes:
        cut: the names of the new shards.
        files: files whose rows went into them.
        waiting: files that are not complete yet, or gather.
        said: what a person should know, in sentences, each told by one look only.
        faults: those of `said` that somebody must mend.
        large: files that are complete and too large for this look, each with its version.
        busy: another process was looking, so nothing was done.
    """

    cut: list[str] = field(default_factory=list)
    files: int = 0
    waiting: int = 0
    said: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)
    busy: bool = False


def look_into_inbox(
    factory: Factory, *, now: float | None = None, gather: bool = True, largest: int | None = None
) -> InboxLook:
    """Look once; `now` is the monotonic clock in seconds, which no change of the wall clock moves.

    Without `gather`, complete files do not wait for others. Files of more than `largest` bytes are left to a look that
    has no such bound: reading them takes long. A folder that cannot be read is told once and does not keep
    the others from being looked at.

    Example:
        >>> look = look_into_inbox(Factory.from_yaml(Path("inbox.yaml")), gather=False)
        >>> look.cut, look.files
        (['inbox-00000'], 1)
    """
    settings = factory.config.inbox
    look = InboxLook()
    if settings is None:
        return look
    try:
        with FileLock(cutting_lock(factory), timeout=0), closing(open_journal(factory)) as journal:
            _recall(factory, journal)
            moment = time.monotonic() if now is None else now
            for folder in settings.folders:
                _compare_folder(journal, folder, settings, moment, look)
            _say_unknown_files(journal, look)
            found = find_candidates(journal, settings, moment)
            _cut(factory, journal, found, moment if gather else inf, look, largest)
            for sentence in look.said:
                journal.say(sentence)
    except Timeout:
        look.busy = True
    return look


def open_journal(factory: Factory) -> Journal:
    """The journal of a factory's inbox."""
    return Journal(factory.store.path(INBOX) / "journal.sqlite")


def take_what_is_there(factory: Factory, wait: Callable[[float], None] = time.sleep) -> list[InboxLook]:
    """For who does not look again and again: look, wait until what lies there would have settled, and take it all."""
    settings = factory.config.inbox
    looks = [look_into_inbox(factory, gather=False)]
    if settings is not None and looks[0].waiting and settings.complete == "stable":
        wait(settings.settle_seconds + 0.1)
        looks.append(look_into_inbox(factory, gather=False))
    while looks[-1].cut and looks[-1].waiting:  # a look takes so many files and no more
        looks.append(look_into_inbox(factory, gather=False))
    return looks


def unfinished_batches(factory: Factory) -> dict[str, list[str]]:
    """The shards of the inbox that are not ingested yet, by the look that cut them (named after its first shard)."""
    batches: dict[str, list[str]] = {}
    unfinished = set()
    graph = Graph(factory)
    for listing in list_shards(factory, INBOX):
        shard, batch = (listing.manifest.configuration[key] for key in ("shard", "batch"))
        batches.setdefault(batch, []).append(shard)
        if graph.find(Ref("raw_pairs", (shard,))) is None:
            unfinished.add(batch)
    return {batch: shards for batch, shards in batches.items() if batch in unfinished}


def _recall(factory: Factory, journal: Journal) -> None:
    """What listings hold and the journal does not know: a look was killed before it wrote that down, or it was lost."""
    known = {name for (name,) in journal.rows("select name from shards")}
    factory.store.refresh("shards", INBOX)
    for folder in sorted(factory.store.path(f"shards/{INBOX}").glob("*")):
        if folder.name in known or folder.name.startswith("."):
            continue
        for listing in factory.store.list("shards", INBOX, folder.name):
            journal.take(folder.name, read_table(listing.file("files.parquet")).to_pylist())


def _compare_folder(journal: Journal, folder: str, settings: InboxSettings, now: float, look: InboxLook) -> None:
    unreadable: list[str] = []
    fault = f"folder {folder}"
    try:
        unspeakable = journal.see(list_files(folder, unreadable.append), settings.marker)
    except SourceError as error:
        if journal.is_news(fault):
            _fault(look, f"The inbox cannot be looked at: {error}")
        return
    if journal.is_over(fault):
        look.said.append(f"{folder}: the inbox can be looked at again.")
    for name in unspeakable:
        if journal.is_news(f"name {name}"):
            _fault(look, f"{name}: its name is no UTF-8 text, so no table can hold it; rename the file.")
    for each in unreadable:
        if journal.is_news(f"unreadable {each}"):
            _fault(look, f"{each}: it may not be read; change its rights.")
    look.said += compare(journal, folder, now, kept=settings.keep == "copy", unreadable=unreadable)


def _say_unknown_files(journal: Journal, look: InboxLook) -> None:
    rows = journal.rows("select place from files where kind = 'unknown' and not gone order by place")
    new = [place for (place,) in rows if journal.is_news(f"unknown {place}")]
    if new:
        more = f" and {len(new) - 1:,} more" if len(new) > 1 else ""
        look.said.append(f"{new[0]}{more}: of no kind that is read (images with .txt, tables, tars, Parquet); ignored.")


def _cut(
    factory: Factory, journal: Journal, found: Candidates, now: float, look: InboxLook, largest: int | None
) -> None:
    settings = factory.config.inbox
    assert settings is not None
    look.waiting = found.waiting
    if found.oldest is None:
        return
    settling = settings.settle_seconds if settings.complete == "stable" else 0.0
    gathered = now - found.oldest >= settling + settings.gather_seconds
    if found.count < factory.config.shard_size and not gathered:
        look.waiting += found.count
        return
    large = [each for each in found.first if largest is not None and each.size > largest]
    look.large = [f"{each.place} {each.version}" for each in large]
    result = cut_files(factory, journal, [each for each in found.first if each not in large])
    look.cut, look.files = result.shards, result.files
    look.waiting += found.count - len(found.first)
    for sentence in result.faults:
        _fault(look, sentence)
    if result.shards:
        look.said.append(f"{_names(result.shards)}: {result.rows:,} rows of {result.files:,} files.")


def _fault(look: InboxLook, sentence: str) -> None:
    look.said.append(sentence)
    look.faults.append(sentence)


def _names(shards: list[str]) -> str:
    return shards[0] if len(shards) == 1 else f"{shards[0]} to {shards[-1]}"
