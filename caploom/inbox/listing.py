"""Compares a folder's files with the journal: new, changed, renamed and deleted files."""

from typing import Any

from caploom.inbox.journal import Journal
from caploom.storage.paths import exists, name_of

_SHOWN = 3  # names in a sentence about many files
_CHECKED = 1_000  # files that seem to be gone, checked one by one


def compare(journal: Journal, inbox: str, now: float, *, kept: bool, unreadable: list[str]) -> list[str]:
    """Update the journal with what `Journal.see` has just seen in the folder `inbox`; returns messages for people.

    `now` is the monotonic clock in seconds; `kept`: whether the store has copies of the taken files; `unreadable`:
    subfolders that could not be listed, so that nothing new is known about their files.
    """
    with journal.transaction():
        changed = journal.rows(
            "select f.place, f.shard from files f join seen s using (place)"
            " where f.version <> '' and f.version <> s.version and f.rows > 0 order by f.place"
        )
        journal.run(
            "update files set version = s.version, identity = s.identity, since = ? from seen s"
            " where files.place = s.place and files.version <> s.version",
            now,
        )
        renamed = journal.rows(
            "select g.place, s.place, g.shard from seen s join files g on g.identity = s.identity"
            " and g.version = s.version and g.place <> s.place and g.inbox = ? and g.rows > 0"
            " where not exists (select 1 from files f where f.place = s.place)"
            " and not exists (select 1 from seen still where still.place = g.place) order by g.place",
            inbox,
        )
        journal.run(
            "insert into files(place, inbox, folder, stem, kind, version, identity, since)"
            " select place, ?, folder, stem, kind, version, identity, ? from seen where true on conflict(place)"
            " do update set inbox = excluded.inbox, folder = excluded.folder, stem = excluded.stem,"
            " kind = excluded.kind, gone = 0",
            inbox,
            now,
        )
        for before, after, _ in renamed:
            # When its caption is renamed as well, the version of both is the same as before.
            journal.run(
                "update files set (taken, rows, finished, shard) ="
                " (select taken, rows, finished, shard from files where place = ?) where place = ?",
                before,
                after,
            )
        journal.run("update files set since = ? where since > ?", now, now)  # the machine was restarted meanwhile
        gone = _gone(journal, inbox, unreadable)
        journal.run("update files set gone = 1 where place in (select folder from gone_now)")
    old_names = {before for before, _, _ in renamed}
    return [
        *_sentences(
            changed,
            "changed after its rows were taken into {shard}: its present rows are taken as new, the old ones stay",
        ),
        *(
            f"{name_of(before)} was renamed to {name_of(after)} after it had been taken into {shard}: "
            + ("there is nothing to do." if kept else "its pair still names the old path; rename it back.")
            for before, after, shard in renamed[:_SHOWN]
        ),
        *([f"{len(renamed) - _SHOWN:,} more files were renamed likewise."] if len(renamed) > _SHOWN else []),
        *_sentences(
            [each for each in gone if each[1] is not None and each[0] not in old_names],
            "is gone from the inbox, taken into {shard} before: "
            + ("the store keeps a copy" if kept else "its pair can no longer be read; put it back"),
        ),
        *_sentences([each for each in gone if each[1] is None], "is gone from the inbox before it was taken"),
    ]


def _gone(journal: Journal, inbox: str, unreadable: list[str]) -> list[tuple[Any, ...]]:
    """The files that no longer exist, with the shards that took them; they stay in the journal's `gone_now`."""
    missing = journal.rows(
        "select place, shard, kind from files where inbox = ? and gone = 0"
        " and not exists (select 1 from seen where seen.place = files.place) order by place",
        inbox,
    )
    hidden = tuple(f"{folder.rstrip('/')}/" for folder in unreadable)
    # A listing may race with changes: a few files are checked again. For thousands, a folder was emptied.
    sure = [
        each
        for number, each in enumerate(missing)
        if not each[0].startswith(hidden or ("\0",)) and (number >= _CHECKED or not exists(each[0]))
    ]
    journal.remember("gone_now", (each[0] for each in sure))
    return [(uri, shard) for uri, shard, kind in sure if kind not in ("caption", "marker", "unfinished")]


def _sentences(found: list[tuple[Any, ...]], what: str) -> list[str]:
    """One sentence about one file or many."""
    if not found:
        return []
    names = ", ".join(name_of(each[0]) for each in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    shards = sorted({each[1] for each in found if each[1]})
    where = ", ".join(shards[:_SHOWN]) + (" ..." if len(shards) > _SHOWN else "")
    each = "each of them " if len(found) > 1 else ""
    return [f"{names}{more}: {each}{what.format(shard=where)}."]
