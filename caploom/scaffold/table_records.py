"""The first records of a table whose columns are still unknown."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from caploom.common.text import first_line
from caploom.errors import SourceError
from caploom.readers.caption_rows import json_items, reading, suffix_of
from caploom.readers.caption_tables import LONGEST_FIELD
from caploom.readers.image_names import IMAGE_SUFFIXES
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import is_url, open_uri

MOST_RECORDS = 300
_MOST_BYTES = 4 * 2**20  # of text that is looked at for its first lines
_LONGEST_PATH = 4_096  # characters


@dataclass(frozen=True)
class FirstRecords:
    """A table's first records.

    Attributes:
        records: mappings of columns to values.
        headless: whether it is a CSV or TSV without a header line; its columns are then `0`, `1`, ...
    """

    records: list[dict[str, Any]]
    headless: bool = False


def first_records(uri: str) -> FirstRecords:
    """The first records of a JSON array, JSON lines, CSV, TSV or Parquet; raises `SourceError` when there is none."""
    suffix = suffix_of(uri)
    if suffix in (".csv", ".tsv"):
        found = _of_lines(uri, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        found = FirstRecords(_of_parquet(uri))
    else:
        found = FirstRecords(list(_objects(uri, _json_lines(uri) if suffix == ".jsonl" else json_items(uri, "item"))))
    if not found.records:
        raise SourceError(f"{uri}: there is no record in it; name a table with a line for each image.")
    return found


def first_items(uri: str, key: str, most: int = MOST_RECORDS) -> list[dict[str, Any]]:
    """The first objects of a list in a JSON object, such as those below `images`."""
    return list(_objects(uri, json_items(uri, f"{key}.item"), most))


def looks_like_an_image(value: Any) -> bool:
    """Whether this text is the path or the URL of an image."""
    if not isinstance(value, str) or not 0 < len(value) < _LONGEST_PATH or "\n" in value:
        return False
    return is_web_address(value) or suffix_of(value.partition("?")[0]) in IMAGE_SUFFIXES


def is_web_address(value: str) -> bool:
    """Whether this text begins like a URL of the web."""
    return value.lower().startswith(("http://", "https://")) and " " not in value.strip()


def _objects(uri: str, items: Iterator[Any], most: int = MOST_RECORDS) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(islice(items, most)):
        if isinstance(item, SourceRow):
            if number == 0:
                raise SourceError(f"{uri}: {(item.detail or '').partition(': ')[2]}")
            return  # the reader reports the damage, with its row
        if isinstance(item, dict):
            yield item


def _json_lines(uri: str) -> Iterator[Any]:
    for line in io.BytesIO(_head(uri)):
        if line.strip():
            try:
                yield json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except (ValueError, RecursionError):
                continue


def _of_lines(uri: str, delimiter: str) -> FirstRecords:
    text = _head(uri).decode("utf-8-sig", "replace")
    # As the reader has it: without a header line, a quote in a TSV is only a character.
    plain = _lines(text, delimiter, quotes=delimiter == ",")
    if plain and any(looks_like_an_image(cell) for cell in plain[0]):
        rows = [{str(at): cell for at, cell in enumerate(line)} for line in plain]
        return FirstRecords(rows[:MOST_RECORDS], headless=True)
    header, *rest = _lines(text, delimiter, quotes=True) or [[]]
    return FirstRecords([dict(zip(header, line, strict=False)) for line in rest])


def _lines(text: str, delimiter: str, *, quotes: bool) -> list[list[str]]:
    """The first lines that are not empty, up to one that cannot be read."""
    csv.field_size_limit(LONGEST_FIELD)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    lines: list[list[str]] = []
    with suppress(csv.Error):
        for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting):
            if line:
                lines.append(line)
            if len(lines) > MOST_RECORDS:
                break
    return lines


def _of_parquet(uri: str) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_uri(uri) as opened, pq.ParquetFile(opened) as file:
            schema = file.schema_arrow
            columns = [name for name in schema.names if not pa.types.is_binary(schema.field(name).type)]
            batch = next(file.iter_batches(batch_size=MOST_RECORDS, columns=columns, use_threads=False), None)
            return batch.to_pylist() if batch is not None else []
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{uri}: it cannot be read as Parquet ({first_line(error)}); repair it.") from None


def _head(uri: str) -> bytes:
    """The first megabytes of a file, up to the end of a line."""
    with reading(uri) as file:
        data = file.read(_MOST_BYTES if not is_url(uri) else _MOST_BYTES // 4)
        whole = not file.read(1)
    return data if whole else data[: data.rfind(b"\n") + 1]
