"""Finds the image that a person names: by its identity or the beginning of it, by its path, or by the file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from caploom.common.hashing import file_sha256
from caploom.errors import StoreError
from caploom.questions.trace.records import TracedFailure
from caploom.stages.registry import stages
from caploom.storage.store import Store
from caploom.storage.tables import read_table

_LEAST_DIGITS = 6
_SHOWN = 5


@dataclass(frozen=True)
class FoundImage:
    """The image; `image_id` is None when none of its rows became a pair: only failures mention it."""

    image_id: str | None
    path: str
    notes: tuple[str, ...] = ()


class ImageFinder:
    """Looks an image up in the raw pairs and the evaluation sets of a store."""

    def __init__(self, store: Store, catalog: duckdb.DuckDBPyConnection) -> None:
        self._store, self._catalog = store, catalog

    def find(self, text: str) -> FoundImage:
        """The image that `text` names; raises `StoreError` when there is none or when there are several."""
        if re.fullmatch(rf"[0-9a-fA-F]{{{_LEAST_DIGITS},64}}", text):
            found = self._by_identity(text.lower())
            if len(found) > 1:
                shown = ", ".join(each[:16] for each in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
                raise StoreError(f"{len(found)} images begin with {text}: {shown}; give more digits.")
            if found:
                return FoundImage(found[0], "")
        notes: list[str] = []
        file = Path(text).expanduser()
        if file.is_file():
            identity = file_sha256(file)
            if self._by_identity(identity):
                return FoundImage(identity, str(file.resolve()))
            notes.append(f"the file {file} as it is now ({identity[:16]}...) was never read")
        names = list(dict.fromkeys([text, str(file.resolve())] if file.is_file() else [text]))
        return self._by_path(names, text, notes)

    def _by_identity(self, beginning: str) -> list[str]:
        """The identities with this beginning, in the raw pairs and in the evaluation sets."""
        known = beginning[:16]
        low, high = int(known.ljust(16, "0"), 16), int(known.ljust(16, "f"), 16)
        holders = self._catalog.execute(
            "select distinct address from images where word between ?::ubigint and ?::ubigint limit 100", [low, high]
        ).fetchall()
        files = [self._store.file(address, "pairs.parquet") for (address,) in holders]
        files += [file for _, file in evaluation_files(self._store, self._catalog)]
        found: set[str] = set()
        for file in files:
            ids = read_table(file, ["image_id"])["image_id"]
            found.update(ids.filter(pc.starts_with(ids, beginning)).to_pylist())
        return sorted(found)

    def _by_path(self, names: Sequence[str], text: str, notes: list[str]) -> FoundImage:
        """The image of a path as the user wrote it, or of an absolute one; the newest, where there were several."""
        found = self._pairs_of(names)
        for _, file in [] if found else evaluation_files(self._store, self._catalog):
            table = read_table(file, ["image_id", "image", "path"])
            wanted = pa.array(list(names), pa.string())
            mask = pc.or_(pc.is_in(table["image"], wanted), pc.is_in(table["path"], wanted))
            found += [(image_id, True) for image_id in dict.fromkeys(table.filter(mask)["image_id"].to_pylist())]
        present = list(dict.fromkeys(image_id for image_id, is_latest in found if is_latest))
        every = list(dict.fromkeys(image_id for image_id, _ in found))
        choice = present or every[:1]
        if len(choice) > 1:
            raise StoreError(
                f"{text} is the path of {len(choice)} images: {', '.join(each[:16] for each in choice[:_SHOWN])}; name "
                "one of them by these digits."
            )
        if not choice:
            if failures_of_path(self._store, self._catalog, names):
                return FoundImage(None, text, tuple(notes))
            why = f" ({notes[0]})" if notes else ""
            raise StoreError(
                f"{text}: no image of this store has this path or an identity that begins so{why}; give the path as it "
                "is in the pairs, or at least six digits of the identity."
            )
        others = [each for each in every if each != choice[0]]
        if others:
            notes.append(f"other images had this path before: {', '.join(other[:16] for other in others)}")
        return FoundImage(choice[0], text, tuple(notes))

    def _pairs_of(self, names: Sequence[str]) -> list[tuple[str, bool]]:
        """The images of these paths in the raw pairs, the newest first, and whether their pairs are the newest."""
        rows = self._catalog.execute(
            "select address, is_latest from manifests where kind = 'raw_pairs' order by started desc"
        ).fetchall()
        latest = {str(self._store.file(address, "pairs.parquet")): is_latest for address, is_latest in rows}
        if not latest:
            return []
        there = [file for file in latest if Path(file).is_file()]
        # One column at a time, so that Parquet's statistics rule most files out.
        column = ["path", "image"] if any(name.startswith("/") for name in names) else ["image"]
        for each in column:
            found = self._catalog.execute(
                f"select distinct image_id, filename from read_parquet(?, filename = true) where {each} in"
                f" ({', '.join('?' for _ in names)})",
                [there, *names],
            ).fetchall()
            if found:
                position = {file: number for number, file in enumerate(latest)}
                found.sort(key=lambda row: position[row[1]])
                return [(image_id, latest[file]) for image_id, file in found]
        return []


def evaluation_files(store: Store, catalog: duckdb.DuckDBPyConnection) -> list[tuple[str, Path]]:
    """The newest version of each evaluation set: its address and the table of its images."""
    tables = {stage.kind: stage.images for stage in stages() if stage.is_content and stage.images}
    rows = catalog.execute(
        "select address, kind from manifests where is_latest and kind in (select unnest(?::text[])) order by address",
        [list(tables)],
    ).fetchall()
    files = [(address, store.file(address, tables[kind])) for address, kind in rows]
    return [(address, file) for address, file in files if file.is_file()]


def failures_of_path(store: Store, catalog: duckdb.DuckDBPyConnection, names: Sequence[str]) -> list[TracedFailure]:
    """Failed rows of the source with one of these paths."""
    rows = catalog.execute(
        "select address from manifests where kind = 'raw_pairs' and rows_failed > 0 order by started"
    ).fetchall()
    files = {str(store.file(address, "failures.parquet")): address for (address,) in rows}
    files = {file: address for file, address in files.items() if Path(file).is_file()}
    if not files:
        return []
    found = catalog.execute(
        "select stage, reason, detail, attempt, filename from read_parquet(?, filename = true)"
        f" where image in ({', '.join('?' for _ in names)}) order by filename, key",
        [list(files), *names],
    ).fetchall()
    return [
        TracedFailure(stage, reason, detail, attempt, files[file]) for stage, reason, detail, attempt, file in found
    ]
