"""Splits complete files of the inbox into shards, each file's rows in order and none twice."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from caploom.config.factory import Factory
from caploom.errors import SourceError
from caploom.inbox.journal import Candidate, Journal
from caploom.inbox.kinds import FileKind
from caploom.readers.image_captions import ImageCaptionsReader
from caploom.readers.image_folder import METADATA_NAMES, ImageFolderReader
from caploom.readers.source_row import SourceRow
from caploom.stages.shards import INBOX, list_shards, next_number, write_shard
from caploom.storage.paths import folder_of, is_url, name_of

_AT_ONCE = 16  # requests to object storage
_AHEAD = 256  # files


@dataclass
class ShardingResult:
    """The new shards, the rows and files in them, and sentences about files that could not be read as a whole."""

    shards: list[str] = field(default_factory=list)
    rows: int = 0
    files: int = 0
    faults: list[str] = field(default_factory=list)


def shard_files(factory: Factory, journal: Journal, files: list[Candidate]) -> ShardingResult:
    """Write the files' rows as new shards of the inbox, and into the journal which shard has which."""
    writer = _ShardWriter(factory, journal)
    for file, rows in _with_rows(files):
        try:
            writer.add(file, rows())
        except SourceError as error:
            # Each scan tries it again: what keeps a file from being read may pass.
            if journal.is_news(f"unreadable {file.uri} {file.version}"):
                writer.result.faults.append(f"{name_of(file.uri)} cannot be taken: {error}")
    writer.write()
    return writer.result


class _ShardWriter:
    def __init__(self, factory: Factory, journal: Journal) -> None:
        self._factory = factory
        self._journal = journal
        self._number = next_number(list_shards(factory, INBOX))
        self._batch = _name(self._number)
        self._rows: list[SourceRow] = []
        self._records: list[dict[str, Any]] = []
        self.result = ShardingResult()

    def add(self, file: Candidate, all_rows: Iterable[SourceRow]) -> None:
        """Add a file's rows, except those that a shard already has; a full shard is written at once."""
        first = file.rows_taken
        rows = islice(all_rows, first, None)
        kept = len(self._rows), len(self._records)
        taken, row = 0, next(rows, None)
        try:
            while row is not None:
                following = next(rows, None)
                self._rows.append(replace(row, row=len(self._rows) + 1))
                taken += 1
                row = following
                if len(self._rows) == self._factory.config.shard_size:
                    self._records.append(_record(file, first, taken, finished=row is None))
                    self.write()
                    first, taken, kept = first + taken, 0, (0, 0)
                    if row is None:
                        self.result.files += 1
                        return
        except SourceError:
            # Its rows that still wait for a shard are not taken: the next scan reads them again.
            del self._rows[kept[0] :], self._records[kept[1] :]
            raise
        self._records.append(_record(file, first, taken, finished=True))
        self.result.files += 1

    def write(self) -> None:
        """Write the waiting rows as a shard; files without any row are only recorded."""
        if self._rows:
            shard = _name(self._number)
            settings = self._factory.config.inbox
            configuration = {
                "reader": {"reader": INBOX},
                "keep": settings.keep if settings is not None else "copy",
                "batch": self._batch,
            }
            write_shard(self._factory, shard, self._rows, configuration, self._records)
            self._journal.take(shard, self._records)
            self.result.shards.append(shard)
            self.result.rows += len(self._rows)
            self._number += 1
        elif self._records:
            self._journal.take("", self._records)
        self._rows, self._records = [], []


def _with_rows(files: list[Candidate]) -> Iterator[tuple[Candidate, Callable[[], Iterable[SourceRow]]]]:
    """Each file with a function that returns its rows; captions of images in object storage are fetched ahead."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for start in range(0, len(files), _AHEAD):
            ahead = files[start : start + _AHEAD]
            fetched = {
                file.uri: threads.submit(lambda each: list(_rows_of(each)), file)
                for file in ahead
                if file.kind == FileKind.IMAGE and is_url(file.uri)
            }
            for file in ahead:
                yield file, fetched[file.uri].result if file.uri in fetched else partial(_rows_of, file)


def _rows_of(file: Candidate) -> Iterator[SourceRow]:
    """The rows of a file, read by the reader of its kind."""
    name = name_of(file.uri)
    if file.kind == FileKind.IMAGE or name in METADATA_NAMES:
        return ImageFolderReader(root=file.inbox).rows_of([file.uri])
    if file.kind == FileKind.TABLE:
        return ImageCaptionsReader(root=folder_of(file.uri), captions=file.uri).rows()
    # Tars and Parquet need libraries that a folder of images does without.
    if file.kind == FileKind.TAR:
        from caploom.readers.webdataset import WebdatasetReader

        return WebdatasetReader(tars=file.uri).rows_of([file.uri])
    from caploom.readers.parquet_images import ParquetReader

    return ParquetReader(files=file.uri).rows_of([file.uri])


def _record(file: Candidate, first: int, rows: int, *, finished: bool) -> dict[str, Any]:
    return {"place": file.uri, "version": file.version, "first_row": first, "rows": rows, "finished": finished}


def _name(number: int) -> str:
    return f"{INBOX}-{number:05d}"
