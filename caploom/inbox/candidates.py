"""Finds the inbox's files that are complete and not yet taken."""

from dataclasses import dataclass

from caploom.config.inbox import InboxSettings
from caploom.inbox.journal import Candidate, Journal
from caploom.storage.paths import folder_of

# An image and the caption file of its stem belong together: both must be settled, and a new text is a new version.
_IMAGES = """
select f.place, f.inbox, f.kind, f.version || '|' || coalesce(c.version, '') as version,
    max(f.since, coalesce(c.since, f.since)) as since, f.folder, c.place is not null as captioned,
    case when f.taken = f.version || '|' || coalesce(c.version, '') then f.rows else 0 end as rows
from files f left join files c on c.folder = f.folder and c.stem = f.stem and c.kind = 'caption' and c.gone = 0
where f.kind = 'image' and f.gone = 0
    and not (f.finished and f.taken is f.version || '|' || coalesce(c.version, ''))
    and (c.place is not null or f.folder not in (select folder from tabled))
"""
_STABLE = "since <= case when captioned then :settled else :patient end"
_MARKED = "folder in (select folder from whole)"
# The table that img2dataset writes next to a tar of the same name describes the tar's images and contains none.
_CONTAINERS = """
select f.place, f.inbox, f.kind, f.version, f.since, f.folder,
    case when f.taken = f.version then f.rows else 0 end
from files f where f.kind in ('table', 'tar', 'parquet') and f.gone = 0
    and not (f.finished and f.taken is f.version)
    and (f.kind = 'tar' or not exists (
        select 1 from files t where t.folder = f.folder and t.stem = f.stem and t.kind = 'tar' and t.gone = 0))
"""


@dataclass(frozen=True)
class Candidates:
    """The files that may be taken now.

    Attributes:
        first: the first of them in the order of their paths, at most as many as one scan takes.
        count: how many there are.
        oldest: when the oldest of them last changed, in seconds of the monotonic clock; None without any.
        waiting: how many files are not complete yet.
    """

    first: list[Candidate]
    count: int
    oldest: float | None
    waiting: int


def find_candidates(journal: Journal, settings: InboxSettings, now: float) -> Candidates:
    """The complete files among those not taken in their present version; `now` is the monotonic clock."""
    tables = {
        folder for (folder,) in journal.rows("select distinct folder from files where kind = 'table' and not gone")
    }
    marked = {folder for (folder,) in journal.rows("select folder from files where kind = 'marker' and not gone")}
    folders = [folder for (folder,) in journal.rows("select distinct folder from files where not gone")]
    journal.remember("tabled", (folder for folder in folders if _is_within(folder, tables)))
    journal.remember("whole", (folder for folder in folders if _is_within(folder, marked)))
    settled = now - settings.settle_seconds
    times = {"settled": settled, "patient": min(settled, now - settings.caption_patience_seconds)}
    ready = _MARKED if settings.complete == "marker" else _STABLE
    images = journal.rows(
        f"select place, inbox, kind, version, since, rows from ({_IMAGES}) where {ready}"
        " order by inbox, place limit :most",
        {**times, "most": settings.files_per_tick},
    )
    ((count, oldest, waiting),) = journal.rows(
        f"select count(*) filter (where {ready}), min(since) filter (where {ready}),"
        f" count(*) filter (where not ({ready})) from ({_IMAGES})",
        times,
    )
    first = [Candidate(*image) for image in images]
    for uri, inbox, kind, version, since, folder, rows in journal.rows(_CONTAINERS):
        # A table describes images next to it, which may still be arriving.
        last = _last_change(journal, folder) if kind == "table" else since
        if _is_within(folder, marked) if settings.complete == "marker" else last <= settled:
            first.append(Candidate(uri, inbox, kind, version, last, rows))
            count, oldest = count + 1, min(last, oldest if oldest is not None else last)
        else:
            waiting += 1
    first.sort(key=lambda each: (each.inbox, each.uri))
    return Candidates(first[: settings.files_per_tick], count, oldest, waiting)


def _last_change(journal: Journal, folder: str) -> float:
    below = f"{folder}/"
    rows = journal.rows(
        "select max(since) from files where not gone and (folder = ? or substr(folder, 1, ?) = ?)",
        folder,
        len(below),
        below,
    )
    return float(rows[0][0] or 0)


def _is_within(folder: str, roots: set[str]) -> bool:
    """Whether a folder is one of the roots or lies below one."""
    while folder not in roots:
        above = folder_of(folder)
        if above == folder or len(above) >= len(folder):
            return False
        folder = above
    return True
