"""An inbox in another place: its files that were taken before it moved are not taken again."""

from dataclasses import dataclass

from caploom.config.factory import Factory
from caploom.inbox.journal import Journal
from caploom.inbox.kinds import FileKind
from caploom.readers.moved import are_these_images
from caploom.stages.known_source import note_inbox_move
from caploom.stages.shards import INBOX
from caploom.storage.tables import read_table

_SAMPLED = 4  # images whose bytes are compared where the times of the files differ


@dataclass(frozen=True)
class _Known:
    """A file as the journal has it."""

    place: str
    folder: str
    stem: str
    kind: str
    version: str
    taken: str | None
    shard: str | None


def follow_move(factory: Factory, journal: Journal, folder: str) -> str | None:
    """Give the files in the journal their names in `folder`, which `Journal.see` has just seen, if it is there anew.

    Files are recognized by their names below the inbox and their sizes and times; by names and sizes alone where some
    images have the bytes that were taken, as copying changes times. Returns a message for people where there were some.
    """
    watched = factory.config.inbox.folders if factory.config.inbox is not None else []
    if journal.rows("select 1 from files where inbox = ? limit 1", folder):
        return None
    for (before,) in journal.rows("select distinct inbox from files where inbox <> '' order by inbox"):
        if before in watched:
            continue
        moved = _moved(factory, journal, before, folder)
        if not moved:
            continue
        with journal.transaction():
            for known, (place, version, identity, taken) in moved:
                journal.run(
                    "update or ignore files set place = ?, inbox = ?, folder = ?, version = ?, identity = ?, taken = ?"
                    " where place = ?",
                    *(place, folder, folder + known.folder.removeprefix(before), version, identity, taken, known.place),
                )
        note_inbox_move(factory.store, before, folder)
        return f"{before} is {folder} now: {len(moved):,} of its files were known before and are not taken again."
    return None


def _moved(
    factory: Factory, journal: Journal, before: str, folder: str
) -> list[tuple[_Known, tuple[str, str, str, str | None]]]:
    """The files of an inbox that are in another folder now, each with its place, version and identity there."""
    columns = "place, folder, stem, kind, version, taken, shard"
    known = [_Known(*row) for row in journal.rows(f"select {columns} from files where inbox = ?", before)]
    seen = {place: versions for place, *versions in journal.rows("select place, version, identity from seen")}
    here = {each.place: folder + each.place.removeprefix(before) for each in known}
    known = [each for each in known if here[each.place] in seen]
    renewed = [each for each in known if seen[here[each.place]][0] != each.version]
    alike = [each for each in renewed if _same_size(each, seen, here)]
    copied = bool(alike) and _are_copies(factory, before, alike, here)
    same = {
        each.place: each
        for each in known
        if seen[here[each.place]][0] == each.version or (copied and _same_size(each, seen, here))
    }
    captions = {(each.folder, each.stem): each for each in same.values() if each.kind == FileKind.CAPTION}
    found = []
    for each in same.values():
        version, identity = seen[here[each.place]]
        caption = captions.get((each.folder, each.stem)) if each.kind == FileKind.IMAGE else None
        taken = each.taken
        if taken is not None and each.kind == FileKind.IMAGE:
            then = f"{each.version}|{caption.version if caption is not None else ''}"
            now = f"{version}|{seen[here[caption.place]][0] if caption is not None else ''}"
            taken = now if taken == then else taken  # else its caption is another, and it is news
        elif taken == each.version:
            taken = version
        found.append((each, (here[each.place], version, identity, taken)))
    return found


def _same_size(known: _Known, seen: dict[str, list[str]], here: dict[str, str]) -> bool:
    return known.version.partition(":")[0] == seen[here[known.place]][0].partition(":")[0]


def _are_copies(factory: Factory, before: str, files: list[_Known], here: dict[str, str]) -> bool:
    """Whether some images have the bytes that raw pairs were made of."""
    images = [each for each in files if each.kind == FileKind.IMAGE and each.shard][:_SAMPLED]
    sampled: list[tuple[str, str]] = []
    for shard in dict.fromkeys(each.shard for each in images):
        identities = {
            row["image"]: row["image_id"]
            for pairs in factory.store.list("raw_pairs", INBOX, str(shard))
            for row in read_table(pairs.file("pairs.parquet"), ["image", "image_id"]).to_pylist()
        }
        names = {each.place.removeprefix(f"{before}/"): here[each.place] for each in images if each.shard == shard}
        sampled += [(identities[name], place) for name, place in names.items() if name in identities]
    return are_these_images(sampled)
