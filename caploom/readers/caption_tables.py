"""Records of caption tables, streamed: JSON, JSON lines, CSV, TSV and Parquet; each bad line is a bad row."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

from caploom.common.text import first_line
from caploom.errors import SourceError
from caploom.readers.caption_rows import bad_row, json_items, reading, suffix_of
from caploom.readers.image_names import is_text
from caploom.storage.paths import is_url, name_of, open_uri

LONGEST_LINE = 64 * 2**20  # bytes
LONGEST_FIELD = (
    4 * 2**20
)  # characters of a CSV field: a caption of 1 MB is accepted, a file swallowed by an open quote is not
NO_CAPTIONS = "none"
"""As `caption_key`: the images of a table have no captions."""
_BUFFER = 2**20  # bytes
_END = "\0the end of the file\0"


@dataclass(frozen=True)
class TableForm:
    """The names of a table's columns.

    Attributes:
        image_key: the image's path.
        caption_keys: columns that may have captions; the first one that is there counts. Empty if no image has one. A
            name with dots that is no column leads into one: `conversations.1.value`.
        columns: names of the columns of a CSV or TSV without a header line; None when it has one.
        quotes: whether a field of a CSV or TSV may be enclosed in quotes.
    """

    image_key: str
    caption_keys: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    quotes: bool = True

    def caption_key(self, names: Any) -> str | None:
        """The first of the caption keys that is among the names, or leads into one of them."""
        return next((key for key in self.caption_keys if _column(key, names) in names), None)

    def columns_of(self, names: Any) -> list[str]:
        """The columns among the names that have the images and the captions."""
        key = self.caption_key(names)
        return [self.image_key] if key is None else [self.image_key, _column(key, names)]

    def captions_of(self, record: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The key of a record's captions, for sentences, and the captions; a table without them gives none."""
        key = self.caption_key(record) or next(iter(self.caption_keys), "caption")
        if not self.caption_keys:
            return key, []
        value = record[key] if key in record else _inside(record, key)
        return key, value if isinstance(value, list) else [value]


def _column(key: str, names: Any) -> str:
    """The column that a caption key names or leads into."""
    return key if key in names else key.partition(".")[0]


def _inside(record: Any, path: str) -> Any:
    """What a dotted path leads to, where a number is a position in a list, from 0; None when it leads nowhere."""
    for part in path.split("."):
        if isinstance(record, Mapping):
            record = record.get(part)
        elif isinstance(record, list) and part.isdecimal() and int(part) < len(record):
            record = record[int(part)]
        else:
            return None
    return record


def caption_keys(configured: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that may have captions, of a reader's `caption_key`: the usual ones where it is not set."""
    if configured is None:
        return usual
    return () if configured == NO_CAPTIONS else (configured,)


def table_records(uri: str, form: TableForm) -> Iterator[Any]:
    """The records of a table in their order: mappings, other values in place of a mapping, or a bad `SourceRow`.

    Raises `SourceError` when the file cannot be read, has another form, or lacks a column.
    """
    return _PARSERS[suffix_of(uri)](uri, form)


def _json_records(uri: str, form: TableForm) -> Iterator[Any]:
    empty = True
    for record in json_items(uri, "item"):
        empty = False
        yield record
    if empty:
        with reading(uri) as file:
            start = file.read(64).lstrip()
        if not start.startswith(b"["):
            raise SourceError(
                f"{uri}: it must be a JSON array of objects, [{{...}}, ...], but starts with {start[:10]!r}."
            )


def _json_lines(uri: str, form: TableForm) -> Iterator[Any]:
    number = 0
    with _buffered(uri) as file:
        while line := file.readline(LONGEST_LINE + 1):
            if not line.strip():
                continue
            number += 1
            where = f"{name_of(uri)}, row {number}"
            if len(line) > LONGEST_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(_BUFFER)
                detail = f"{where}: the line is longer than {LONGEST_LINE // 2**20} MiB, which no caption is."
                yield bad_row(number, "", "line_too_long", detail)
                continue
            try:
                yield json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except UnicodeDecodeError:
                yield bad_row(number, "", "undecodable_text", f"{where}: it is not UTF-8; convert the file.")
            except (ValueError, RecursionError) as error:
                detail = f"{where}: it is not valid JSON ({first_line(error)}); correct the line."
                yield bad_row(number, "", "invalid_json", detail)


def _csv_records(uri: str, form: TableForm) -> Iterator[Any]:
    delimiter = "\t" if suffix_of(uri) == ".tsv" else ","
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if form.quotes else csv.QUOTE_NONE
    csv.field_size_limit(LONGEST_FIELD)  # the limit applies to the whole process, and is 128 KiB by default
    count = 0
    with (
        _buffered(uri) as file,
        # Invalid UTF-8 becomes lone surrogates, by which its rows are recognized below.
        io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        read = _LinesAndEnd(text)
        lines = csv.DictReader(read, form.columns, delimiter=delimiter, quoting=quoting)
        try:
            names = [name for name in lines.fieldnames or [] if not name.endswith(_END)]
            _check_columns(uri, form, names, whole=names == (lines.fieldnames or []))
            for line in lines:
                if read.at_end:
                    if [value for value in line.values() if value is not None] not in ([], [_END]):
                        raise csv.Error("a quote is opened and never closed")
                    break
                count += 1
                fault = _line_fault(line, len(names), form)
                if fault is None:
                    yield line
                else:
                    image = line.get(form.image_key)
                    yield bad_row(count, image or "", fault[0], f"{name_of(uri)}, row {count}: {fault[1]}")
        except csv.Error as error:
            detail = f"{name_of(uri)}: it cannot be read after row {count} ({error}); repair the file."
            yield bad_row(count + 1, "", "invalid_csv", detail)


class _LinesAndEnd:
    """A text's lines and one more, which is a separate record unless a quote was left open before it."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.at_end = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.at_end:
            raise StopIteration
        line = self._text.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise csv.Error(f"a line is longer than {LONGEST_LINE // 2**20} MiB")
        self.at_end = not line
        return line or _END


def _line_fault(line: dict[Any, Any], columns: int, form: TableForm) -> tuple[str, str] | None:
    """Why a line of a CSV cannot be used, as a reason and the end of a sentence."""
    extra = line.get(None)
    if extra and any(extra):
        too_many = f"it has {columns + len(extra)} fields but the table has {columns} columns"
        return "too_many_fields", f"{too_many}; a caption that contains the delimiter must be enclosed in quotes."
    for key in (form.image_key, *form.caption_keys):
        value = line.get(key)
        if value is not None and not value.isascii() and not is_text(value):
            return "undecodable_text", f'"{key}" is not UTF-8; convert the file.'
    return None


def _check_columns(uri: str, form: TableForm, names: list[str], *, whole: bool = True) -> None:
    """Raise `SourceError` for a missing column; a header that is not `whole` has lost some."""
    have = "the header" if form.columns is None and suffix_of(uri) != ".parquet" else "it"
    if form.image_key not in names:
        columns = ", ".join(names) or "none"
        raise SourceError(f'{uri}: {have} has no column "{form.image_key}" (columns: {columns}); name it in the YAML.')
    if form.caption_keys and form.caption_key(names) is None and (names != [form.image_key] or not whole):
        raise SourceError(
            f'{uri}: {have} has no column "{form.caption_keys[0]}" (columns: {", ".join(names)}); name it in the YAML, '
            f"or write `caption_key: {NO_CAPTIONS}` if these images have no captions."
        )


def _parquet_records(uri: str, form: TableForm) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_uri(uri) as opened, pq.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            _check_columns(uri, form, names)
            columns = form.columns_of(names)
            for batch in file.iter_batches(batch_size=4096, columns=columns, use_threads=False):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{uri}: it cannot be read as Parquet ({first_line(error)}); repair it.") from None


@contextmanager
def _buffered(uri: str) -> Iterator[BinaryIO]:
    """Open a file so that `readline` takes a limit, which fsspec's own does not."""
    with reading(uri) as file:
        if is_url(uri):
            with io.BufferedReader(cast(io.RawIOBase, file), _BUFFER) as buffered:
                yield cast(BinaryIO, buffered)
        else:
            yield file


_Parser = Callable[[str, TableForm], Iterator[Any]]

_PARSERS: dict[str, _Parser] = {
    ".json": _json_records,
    ".jsonl": _json_lines,
    ".csv": _csv_records,
    ".tsv": _csv_records,
    ".parquet": _parquet_records,
}
TABLE_SUFFIXES = tuple(_PARSERS)
