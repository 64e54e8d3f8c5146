"""The state of the inbox and what became of its files, for people."""

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from caploom.catalog.query import printable
from caploom.common.text import counted
from caploom.config.factory import Factory
from caploom.config.inbox import InboxSettings
from caploom.errors import SourceError
from caploom.inbox.journal import Journal
from caploom.inbox.scan import open_journal
from caploom.stages.graph import Graph
from caploom.stages.shards import INBOX, list_shards
from caploom.stages.stage import Ref
from caploom.storage.paths import list_files

_TAKEN_KINDS = "kind not in ('caption', 'marker', 'unfinished', 'unknown')"


@dataclass(frozen=True)
class InboxState:
    """The inbox after the last scan, and what has come since.

    Attributes:
        folders: the watched folders.
        not_scanned: number of files by kind that are there now, and that the last scan did not see as they are.
        unreadable: a sentence for each folder that cannot be listed.
        waiting: number of files by kind that are not taken yet.
        taken: number of files by kind whose rows are in shards.
        shards: the shards created from it: name, rows, and whether it is ingested.
        events: the newest events, the newest last: time (ISO 8601) and text.
    """

    folders: list[str]
    not_scanned: dict[str, int]
    unreadable: list[str]
    waiting: dict[str, int]
    taken: dict[str, int]
    shards: list[tuple[str, int, bool]]
    events: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "folders": self.folders,
            "not_scanned": self.not_scanned,
            "unreadable": self.unreadable,
            "waiting": self.waiting,
            "taken": self.taken,
            "shards": [dict(zip(("shard", "rows", "ingested"), shard, strict=True)) for shard in self.shards],
            "events": [dict(zip(("at", "event"), event, strict=True)) for event in self.events],
        }

    def lines(self) -> list[str]:
        """As lines of text."""
        found = [f"watched: {', '.join(self.folders)}"]
        found += [f"cannot be scanned: {printable(sentence)}" for sentence in self.unreadable]
        new = sum(self.not_scanned.values())
        if new:
            were = "was" if new == 1 else "were"
            found.append(
                f"not scanned yet: {_by_kind(self.not_scanned)}; {counted(new, 'files')} {were} not looked at, and "
                "`caploom inbox --scan`, a run or the sensor takes them"
            )
        if self.waiting or not (new or self.unreadable):
            found.append(f"waiting: {_by_kind(self.waiting)}")
        found.append(f"taken: {_by_kind(self.taken)}")
        found += [f"{shard}: {rows:,} rows{'' if done else ', not ingested yet'}" for shard, rows, done in self.shards]
        return [*found, *(f"{at}  {printable(event)}" for at, event in self.events)]


def inbox_state(factory: Factory, events: int) -> InboxState:
    """The state of a factory's inbox with this many of its newest events; its folders are listed, nothing is taken."""
    settings = factory.config.inbox
    with closing(open_journal(factory)) as journal:
        not_scanned, unreadable = _new_files(journal, settings) if settings is not None else ({}, [])
        counts = {
            name: dict(
                journal.rows(
                    f"select kind, count(*) from files where not gone and {which} and {_TAKEN_KINDS}"
                    " group by kind order by kind"
                )
            )
            for name, which in (("waiting", "taken is null"), ("taken", "taken is not null"))
        }
        newest = journal.rows("select at, sentence from events order by rowid desc limit ?", events)
    graph = Graph(factory)
    shards = [
        (
            listing.manifest.configuration["shard"],
            listing.manifest.summary["rows"],
            graph.find(Ref("raw_pairs", (listing.manifest.configuration["shard"],))) is not None,
        )
        for listing in list_shards(factory, INBOX)
    ]
    return InboxState(
        folders=list(settings.folders) if settings is not None else [],
        not_scanned=not_scanned,
        unreadable=unreadable,
        waiting=counts["waiting"],
        taken=counts["taken"],
        shards=shards,
        events=[(at, sentence) for at, sentence in reversed(newest)],
    )


def _new_files(journal: Journal, settings: InboxSettings) -> tuple[dict[str, int], list[str]]:
    """The files that a scan would find new or changed, by kind; and a sentence for each folder that it cannot list."""
    new: dict[str, int] = {}
    unreadable: list[str] = []
    for folder in settings.folders:
        try:
            journal.see(list_files(folder), settings.marker)
        except SourceError as error:
            unreadable.append(str(error))
            continue
        # A journal that was lost and filled again from the listings knows what was taken, and no version yet.
        for kind, count in journal.rows(
            f"select s.kind, count(*) from seen s left join files f using (place) where s.{_TAKEN_KINDS} and ("
            " f.place is null or f.taken is null and f.gone or f.taken is not null and f.version <> s.version"
            " and not (f.version = '' and substr(f.taken, 1, length(s.version)) = s.version)"
            ") group by s.kind order by s.kind"
        ):
            new[kind] = new.get(kind, 0) + count
    return new, unreadable


def _by_kind(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "nothing"
