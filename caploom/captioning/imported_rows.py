"""The rows of a file of captions, and the ingested image of each.

They are in a temporary DuckDB database, never all in Python: a file of millions of rows takes bounded memory.
"""

import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from caploom.common.text import first_line
from caploom.errors import StoreError
from caploom.images.decode import ImageFault, read_image_file
from caploom.images.location import Location
from caploom.readers.source_row import SourceRow
from caploom.storage.manifest import MANIFEST
from caploom.storage.records import SOURCE_ROWS, image_identity, optional, schema_of
from caploom.storage.store import Store
from caploom.storage.tables import read_table

RAW_PAIRS = "raw_pairs"
"""The kind of artifact whose tables have the names and identities of ingested images."""

_PAGE = 50_000  # rows in Python's memory at a time
_MEMORY = "1GB"  # beyond it DuckDB works on the disk
_HASHED = schema_of(
    row=pa.int64(),
    image_id=optional(pa.string()),  # null when the file could not be read
    reason=optional(pa.string()),
    detail=optional(pa.string()),
)

# A path at which two versions of the source had different images is ambiguous: its file is hashed.
_IDENTIFY_BY_PATH = """
create or replace table by_path as
select row, places.image_id from rows join (
    select path, min(image_id) as image_id from ingested group by path having count(distinct image_id) = 1
) as places using (path) where rows.reason is null
"""
_UNIDENTIFIED = """
select row, path from rows anti join by_path using (row) anti join hashed using (row) where reason is null order by row
"""
# Why each row is used (reason is null) or not. `first`: the first row of the same image.
_MATCH = """
create or replace table matches as
with known as (
    select rows.row, coalesce(by_path.image_id, hashed.image_id) as image_id,
        coalesce(rows.reason, case when by_path.row is null then hashed.reason end) as fault,
        coalesce(rows.detail, hashed.detail) as detail
    from rows left join by_path using (row) left join hashed using (row)
), firsts as (
    select image_id, min(row) as first from known
    where fault is null and image_id in (select image_id from ingested) group by image_id
)
select row, image_id, first, detail, case
    when fault is not null then fault
    when first is null then 'not_ingested'
    when row > first then 'repeated_image'
end as reason from known left join firsts using (image_id)
"""


class ImportedRows:
    """A file's rows in the order of the file, each matched to an ingested image or with the reason why it is not."""

    def __init__(self, file: str, store: Store) -> None:
        """Start without rows; `file` is the file's name, for sentences."""
        import duckdb  # only where it is asked: planning imports this module

        self._file, self._store = file, store
        self._matched_against: list[Path] | None = None
        with _room_for_it(file), ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="caploom-import-"))
            database = duckdb.connect(str(Path(folder, "rows.duckdb")), config={"memory_limit": _MEMORY})
            self._database = stack.enter_context(database)
            self._database.register("empty_rows", SOURCE_ROWS.empty_table())
            self._database.register("empty_hashed", _HASHED.empty_table())
            self._database.execute("create table rows as from empty_rows; create table hashed as from empty_hashed")
            self._opened = stack.pop_all()

    def close(self) -> None:
        """Delete the temporary database."""
        self._opened.close()

    def take(self, rows: Iterable[SourceRow]) -> None:
        """Keep rows of the file; raises `StoreError` when the temporary folder has no room for them."""
        coming = iter(rows)
        with _room_for_it(self._file):
            while page := list(islice(coming, _PAGE)):
                self._insert("rows", _table(page))

    def match(self) -> bool:
        """Find each row's image among the ingested ones; returns False when none were ingested since the last call.

        Raises `StoreError` when ingested pairs cannot be read, or the temporary folder is full.
        """
        files = _ingested_files(self._store)
        if files == self._matched_against:
            return False
        with _room_for_it(self._file):
            self._take_ingested(files)
            self._database.execute(_IDENTIFY_BY_PATH)
            self._identify_by_content()
            self._database.execute(_MATCH)
        self._matched_against = files
        return True

    def counts(self) -> dict[str | None, int]:
        """The number of rows per reason; None stands for rows that give an image its caption."""
        query = "select reason, count(*) from matches group by reason order by reason"
        return dict(self._database.execute(query).fetchall())

    def captions_of(self, image_ids: Sequence[str]) -> list[str | None]:
        """The caption of each of these images, in their order."""
        wanted = pa.table({"place": range(len(image_ids)), "image_id": image_ids})
        self._database.register("wanted", wanted)
        rows = self._database.execute(
            "select caption from wanted left join (from matches where reason is null) using (image_id)"
            " left join rows using (row) order by place"
        ).fetchall()
        return [caption for (caption,) in rows]

    def unmatched(self) -> Iterator[tuple[int, str, str, str]]:
        """(row, image, reason, sentence) of each row that gives no image its caption, in the file's order."""
        query = """
            select row, image, matches.reason, matches.detail, first from matches join rows using (row)
            where matches.reason is not null order by row
        """
        for page in self._pages(query):
            for row, image, reason, detail, first in page:
                if reason == "repeated_image":
                    detail = f"{self._where(row)}: the same image is already in row {first}, and the first counts."
                elif reason == "not_ingested":
                    detail = f"{self._where(row)}: its image is in no ingested pair."
                yield row, image, reason, detail

    def first_named(self) -> tuple[int, str] | None:
        """The first row that names an image, and the name."""
        found = self._database.execute("select row, image from rows where image <> '' order by row limit 1").fetchall()
        return found[0] if found else None

    def an_ingested_path(self) -> str | None:
        """The path of one of the ingested images."""
        path: str | None = self._database.execute("select min(path) from ingested").fetchall()[0][0]
        return path

    def _take_ingested(self, files: list[Path]) -> None:
        self._database.execute("create or replace table ingested (path varchar, image_id varchar)")
        for file in files:
            self._insert("ingested", read_table(file, ["path", "image_id"]))

    def _identify_by_content(self) -> None:
        """Hash files that only the rows name, and no ingested pair, if they can be copies of an ingested image."""
        sizes: set[int] | None = None
        for number, page in enumerate(self._pages(_UNIDENTIFIED)):
            if number == 0:
                sizes = self._ingested_sizes()
            found = [self._hashed(row, Path(path)) for row, path in page if _may_be_one_of(Path(path), sizes)]
            self._insert("hashed", pa.Table.from_pylist(found, schema=_HASHED))

    def _hashed(self, row: int, path: Path) -> dict[str, Any]:
        try:
            return {"row": row, "image_id": image_identity(read_image_file(path))}
        except ImageFault as fault:
            return {"row": row, "reason": fault.reason, "detail": f"{self._where(row)}: {fault.detail}"}

    def _ingested_sizes(self) -> set[int] | None:
        """Sizes in bytes of the ingested images; None when one is gone, since a copy of it may have any size."""
        sizes: set[int] = set()
        for page in self._pages("select any_value(path) from ingested group by image_id"):
            try:
                sizes.update(_size(Location.parse(path)) for (path,) in page)
            except OSError:
                return None
        return sizes

    def _where(self, row: int) -> str:
        return f"{self._file}, row {row}"

    def _insert(self, table: str, rows: pa.Table) -> None:
        self._database.register("new_rows", rows)
        self._database.execute(f"insert into {table} from new_rows")
        self._database.unregister("new_rows")

    def _pages(self, query: str) -> Iterator[list[tuple[Any, ...]]]:
        # A separate cursor: the open result must not block the next query.
        with self._database.cursor() as cursor:
            cursor.execute(query)
            while page := cursor.fetchmany(_PAGE):
                yield page


@contextmanager
def _room_for_it(file: str) -> Iterator[None]:
    """Turn any of DuckDB's three errors for a full disk into a `StoreError`."""
    import duckdb  # only where it is asked: planning imports this module

    try:
        yield
    except (duckdb.IOException, duckdb.TransactionException, duckdb.OutOfMemoryException) as error:
        raise StoreError(
            f"{file}: its rows cannot be stored in the temporary folder {tempfile.gettempdir()} "
            f"({first_line(error)}); make room there or name another folder in TMPDIR."
        ) from None


def _ingested_files(store: Store) -> list[Path]:
    # A hidden folder is an unfinished artifact, of a running or a killed process: it is ignored.
    store.refresh(RAW_PAIRS)
    found = store.path(RAW_PAIRS).glob(f"*/*/[!.]*/{MANIFEST}")
    root = store.root.resolve()
    files = (store.file(path.parent.relative_to(root).as_posix(), "pairs.parquet") for path in found)
    return sorted(path for path in files if path.is_file())


def _table(rows: Sequence[SourceRow]) -> pa.Table:
    columns = {name: [getattr(row, name) for row in rows] for name in SOURCE_ROWS.names}
    columns["caption"] = [caption and caption.strip() for caption in columns["caption"]]
    return pa.table(columns, schema=SOURCE_ROWS)


def _size(location: Location) -> int:
    """The size of an image in bytes; raises `OSError` when its file is gone."""
    return location.length if location.length is not None else Path(location.uri).stat().st_size


def _may_be_one_of(path: Path, sizes: set[int] | None) -> bool:
    """Whether a file must be read: not when no ingested image has the same size."""
    try:
        found = path.stat()
    except OSError:
        return True  # reading it will report why
    return sizes is None or not stat.S_ISREG(found.st_mode) or found.st_size == 0 or found.st_size in sizes
