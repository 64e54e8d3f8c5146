"""The state of the inbox and what became of its files, for people."""

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from caploom.catalog.query import printable
from caploom.config.factory import Factory
from caploom.inbox.scan import open_journal
from caploom.stages.graph import Graph
from caploom.stages.shards import INBOX, list_shards
from caploom.stages.stage import Ref


@dataclass(frozen=True)
class InboxState:
    """The inbox after the last scan.

    Attributes:
        folders: the watched folders.
        waiting: number of files by kind that are not taken yet.
        taken: number of files by kind whose rows are in shards.
        shards: the shards created from it: name, rows, and whether it is ingested.
        events: the newest events, the newest last: time (ISO 8601) and text.
    """

    folders: list[str]
    waiting: dict[str, int]
    taken: dict[str, int]
    shards: list[tuple[str, int, bool]]
    events: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "folders": self.folders,
            "waiting": self.waiting,
            "taken": self.taken,
            "shards": [dict(zip(("shard", "rows", "ingested"), shard, strict=True)) for shard in self.shards],
            "events": [dict(zip(("at", "event"), event, strict=True)) for event in self.events],
        }

    def lines(self) -> list[str]:
        """As lines of text."""
        found = [f"watched: {', '.join(self.folders)}"]
        for name, counts in (("waiting", self.waiting), ("taken", self.taken)):
            found.append(f"{name}: " + (", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "nothing"))
        found += [f"{shard}: {rows:,} rows{'' if done else ', not ingested yet'}" for shard, rows, done in self.shards]
        return [*found, *(f"{at}  {printable(event)}" for at, event in self.events)]


def inbox_state(factory: Factory, events: int) -> InboxState:
    """The state of a factory's inbox with this many of its newest events; nothing is scanned."""
    settings = factory.config.inbox
    with closing(open_journal(factory)) as journal:
        counts = {
            name: dict(
                journal.rows(
                    f"select kind, count(*) from files where not gone and {which} and kind not in "
                    "('caption', 'marker', 'unfinished', 'unknown') group by kind order by kind"
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
        waiting=counts["waiting"],
        taken=counts["taken"],
        shards=shards,
        events=[(at, sentence) for at, sentence in reversed(newest)],
    )
