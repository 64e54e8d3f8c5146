"""A scan of the inbox: notices what changed, and splits complete files into new shards.

A scan that ends between any two steps is continued by the next: files count as taken when a listing in the store holds
them, and only then.
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
from caploom.inbox.moved_folders import follow_move
from caploom.inbox.sharding import shard_files
from caploom.stages.graph import Graph
from caploom.stages.shards import INBOX, list_shards, sharding_lock
from caploom.stages.stage import Ref
from caploom.storage.paths import list_files
from caploom.storage.tables import read_table


@dataclass
class InboxScan:
    """What a scan found.

    Attributes:
        new_shards: their names.
        files: files whose rows went into them.
        waiting: files that are incomplete, or wait for a full shard.
        messages: what a person should know, in sentences; each is reported by one scan only.
        faults: those of `messages` that somebody must fix.
        large: files that are complete and too large for this scan, each with its version.
        busy: another process was scanning, so nothing was done.
    """

    new_shards: list[str] = field(default_factory=list)
    files: int = 0
    waiting: int = 0
    messages: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)
    busy: bool = False


def scan_inbox(
    factory: Factory, *, now: float | None = None, gather: bool = True, largest: int | None = None
) -> InboxScan:
    """Scan once; `now` is the monotonic clock in seconds, which no change of the wall clock moves.

    Without `gather`, complete files do not wait for others. Files of more than `largest` bytes are left to a scan
    without that limit, because reading them takes long. A folder that cannot be read is reported once, and the others
    are still scanned.

    Example:
        >>> scan = scan_inbox(Factory.from_yaml(Path("inbox.yaml")), gather=False)
        >>> scan.new_shards, scan.files
        (['inbox-00000'], 1)
    """
    settings = factory.config.inbox
    scan = InboxScan()
    if settings is None:
        return scan
    try:
        with FileLock(sharding_lock(factory), timeout=0), closing(open_journal(factory)) as journal:
            _recall(factory, journal)
            moment = time.monotonic() if now is None else now
            for folder in settings.folders:
                _compare_folder(factory, journal, folder, settings, moment, scan)
            _report_unknown_files(journal, scan)
            found = find_candidates(journal, settings, moment)
            _create_shards(factory, journal, found, moment if gather else inf, scan, largest)
            for sentence in scan.messages:
                journal.log_event(sentence)
    except Timeout:
        scan.busy = True
    return scan


def open_journal(factory: Factory) -> Journal:
    """The journal of a factory's inbox."""
    return Journal(factory.store.path(INBOX) / "journal.sqlite")


def take_everything(factory: Factory, wait: Callable[[float], None] = time.sleep) -> list[InboxScan]:
    """Scan, wait until the files there would have settled, and take them all: for a caller without a sensor."""
    settings = factory.config.inbox
    scans = [scan_inbox(factory, gather=False)]
    if settings is not None and scans[0].waiting and settings.complete == "stable":
        wait(settings.settle_seconds + 0.1)
        scans.append(scan_inbox(factory, gather=False))
    while scans[-1].new_shards and scans[-1].waiting:  # one scan takes a limited number of files
        scans.append(scan_inbox(factory, gather=False))
    return scans


def unfinished_batches(factory: Factory) -> dict[str, list[str]]:
    """The inbox's shards that are not ingested yet, by the scan that created them (named after its first shard)."""
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
    """Add to the journal what listings hold and it lacks: a scan was killed before it wrote that, or it was lost."""
    known = {name for (name,) in journal.rows("select name from shards")}
    factory.store.refresh("shards", INBOX)
    for folder in sorted(factory.store.path(f"shards/{INBOX}").glob("*")):
        if folder.name in known or folder.name.startswith("."):
            continue
        for listing in factory.store.list("shards", INBOX, folder.name):
            journal.take(folder.name, read_table(listing.file("files.parquet")).to_pylist())


def _compare_folder(
    factory: Factory, journal: Journal, folder: str, settings: InboxSettings, now: float, scan: InboxScan
) -> None:
    unreadable: list[str] = []
    fault = f"folder {folder}"
    try:
        unspeakable = journal.see(list_files(folder, unreadable.append), settings.marker)
    except SourceError as error:
        if journal.is_news(fault):
            _fault(scan, f"The inbox cannot be scanned: {error}")
        return
    if journal.is_over(fault):
        scan.messages.append(f"{folder}: the inbox can be scanned again.")
    for name in unspeakable:
        if journal.is_news(f"name {name}"):
            _fault(scan, f"{name}: its name is not UTF-8 text, so no table can hold it; rename the file.")
    moved = follow_move(factory, journal, folder)
    scan.messages += [moved] if moved is not None else []
    for each in unreadable:
        if journal.is_news(f"unreadable {each}"):
            _fault(scan, f"{each}: reading it is not permitted; change its permissions.")
    scan.messages += compare(journal, folder, now, kept=settings.keep == "copy", unreadable=unreadable)


def _report_unknown_files(journal: Journal, scan: InboxScan) -> None:
    rows = journal.rows("select place from files where kind = 'unknown' and not gone order by place")
    new = [uri for (uri,) in rows if journal.is_news(f"unknown {uri}")]
    if new:
        more = f" and {len(new) - 1:,} more" if len(new) > 1 else ""
        scan.messages.append(
            f"{new[0]}{more}: not a kind that is read (images with .txt, tables, tars, Parquet); ignored."
        )


def _create_shards(
    factory: Factory, journal: Journal, found: Candidates, now: float, scan: InboxScan, largest: int | None
) -> None:
    settings = factory.config.inbox
    assert settings is not None
    scan.waiting = found.waiting
    if found.oldest is None:
        return
    settling = settings.settle_seconds if settings.complete == "stable" else 0.0
    gathered = now - found.oldest >= settling + settings.gather_seconds
    if found.count < factory.config.shard_size and not gathered:
        scan.waiting += found.count
        return
    large = [each for each in found.first if largest is not None and each.size > largest]
    scan.large = [f"{each.uri} {each.version}" for each in large]
    result = shard_files(factory, journal, [each for each in found.first if each not in large])
    scan.new_shards, scan.files = result.shards, result.files
    scan.waiting += found.count - len(found.first)
    for sentence in result.faults:
        _fault(scan, sentence)
    if result.shards:
        scan.messages.append(f"{_names(result.shards)}: {result.rows:,} rows of {result.files:,} files.")


def _fault(scan: InboxScan, sentence: str) -> None:
    scan.messages.append(sentence)
    scan.faults.append(sentence)


def _names(shards: list[str]) -> str:
    return shards[0] if len(shards) == 1 else f"{shards[0]} to {shards[-1]}"
