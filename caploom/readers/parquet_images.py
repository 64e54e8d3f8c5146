"""Reads Parquet tables of images or their paths: from the Hugging Face hub, img2dataset and others."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from caploom.common.text import first_line
from caploom.errors import SourceError
from caploom.images.location import Location
from caploom.readers.caption_rows import CaptionRows, bad_row, caption_row
from caploom.readers.expand_paths import files_named
from caploom.readers.source_reader import FilesReader
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import UriOrPath, folder_of, name_of, open_uri

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "img", "image_bytes", "bytes", "image_path", "path", "file_name")
_CAPTION_COLUMNS = ("caption", "captions", "text", "TEXT", "raw_caption", "sentences")
_ROWS = 1_024


class ParquetReader(FilesReader):
    """Parquet files with a column of images (bytes, or the hub's `{bytes, path}`) or of paths, and one of captions.

    Example:
        >>> [row.caption for row in ParquetReader(files="cats.parquet").rows()]
        ['A cat.']
    """

    reader: Literal["parquet"] = "parquet"
    files: UriOrPath = Field(description="A file, a folder of files, or a pattern such as `data/*.parquet`.")
    root: UriOrPath | None = Field(default=None, description="What paths start from; by default the file's own folder.")
    image_key: str | None = Field(default=None, description="Column of the images; by default the first usual one.")
    caption_key: str | None = Field(default=None, description="Column of a caption, or a list of them.")

    def uris(self) -> list[str]:
        """The paths or URLs of the files."""
        return files_named(self.files, [".parquet"])

    def rows_of(self, files: Sequence[str]) -> Iterator[SourceRow]:
        """The rows of these files; a damaged file is a bad row. Raises `SourceError` when one lacks its columns."""
        before = 0
        for uri in files:
            numbers = 0
            for numbers, row in self._of_file(uri, before):  # noqa: B007 - the last one is needed
                yield row
            before += numbers

    def _of_file(self, uri: str, before: int) -> Iterator[tuple[int, SourceRow]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        count = 0
        try:
            with open_uri(uri) as opened, pq.ParquetFile(opened) as file:
                image, caption = self._columns(uri, file.schema_arrow)
                in_bytes = _holds_bytes(file.schema_arrow.field(image).type)
                columns = [caption] if in_bytes else [image, caption]
                make = CaptionRows(name_of(uri), self.root or folder_of(uri))
                for batch in file.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
                    for record in batch.to_pylist():
                        count += 1
                        value = record[caption]
                        captions = value if isinstance(value, list) else [value]
                        number = before + count
                        if in_bytes:
                            rows = _of_bytes(uri, number, count - 1, image, captions)
                        else:
                            rows = make.of_image(number, record[image], captions, image_key=image, caption_key=caption)
                        for row in rows:
                            yield count, row
        except (pa.ArrowException, OSError) as error:
            detail = (
                f"{name_of(uri)}: it cannot be read as Parquet after row {count} ({first_line(error)}); copy it again."
            )
            yield count + 1, bad_row(before + count + 1, name_of(uri), "damaged_parquet", detail)

    def _columns(self, uri: str, schema: "pa.Schema") -> tuple[str, str]:
        found = []
        for key, usual, what in (
            (self.image_key, _IMAGE_COLUMNS, "image_key"),
            (self.caption_key, _CAPTION_COLUMNS, "caption_key"),
        ):
            wanted = [key] if key is not None else usual
            name = next((each for each in wanted if each in schema.names), None)
            if name is None:
                raise SourceError(
                    f"{uri}: it has no column {' or '.join(wanted)} (columns: {', '.join(schema.names)}); "
                    f"name it as `{what}`."
                )
            found.append(name)
        return found[0], found[1]


def _holds_bytes(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_struct(kind))


def _of_bytes(uri: str, number: int, row: int, column: str, captions: Sequence[Any]) -> Iterator[SourceRow]:
    location = str(Location(uri, row=row, column=column))
    image = f"{name_of(uri)}/{row}"
    where = f"{name_of(uri)}, row {number}"
    if not captions:
        yield bad_row(number, image, "no_caption", f"{where}: the list of captions is empty.")
    for caption in captions:
        yield caption_row(number, image, location, caption, where=where, key="caption")
