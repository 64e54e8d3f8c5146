"""Reads Parquet tables of images or their paths: from the Hugging Face hub, img2dataset and others."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from caploom.common.text import first_line
from caploom.errors import SourceError
from caploom.images.location import Location
from caploom.readers.caption_rows import CaptionRows, bad_row, caption_row, uncaptioned_row
from caploom.readers.caption_tables import NO_CAPTIONS, caption_keys
from caploom.readers.expand_paths import files_named
from caploom.readers.source_reader import FilesReader
from caploom.readers.source_row import SourceRow
from caploom.storage.paths import UriOrPath, folder_of, name_of, open_uri

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "img", "image_bytes", "bytes", "image_path", "path", "file_name")
"""Columns of images, or of their paths, that are found by themselves; the first one that is there counts."""
CAPTION_COLUMNS = ("caption", "captions", "text", "TEXT", "raw_caption", "sentences")
"""The same of captions."""
_ROWS = 1_024


class ParquetReader(FilesReader):
    """Parquet files with a column of images (bytes, or the hub's `{bytes, path}`) or of paths, and one of captions.

    Example:
        >>> [row.caption for row in ParquetReader(files="cats.parquet").rows()]
        ['A cat.']
    """

    locations: ClassVar[frozenset[str]] = frozenset({"files", "root"})
    reader: Literal["parquet"] = "parquet"
    files: UriOrPath = Field(description="A file, a folder of files, or a pattern such as `data/*.parquet`.")
    root: UriOrPath | None = Field(default=None, description="What paths start from; by default the file's own folder.")
    image_key: str | None = Field(default=None, description="Column of the images; by default the first usual one.")
    caption_key: str | None = Field(
        default=None, description="Column of a caption, or a list of them; `none` of images without captions."
    )

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
                columns = [name for name in (None if in_bytes else image, caption) if name is not None]
                make = CaptionRows(name_of(uri), self.root or folder_of(uri))
                for batch in file.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
                    for record in batch.to_pylist():
                        count += 1
                        value = record[caption] if caption is not None else []
                        captions = value if isinstance(value, list) else [value]
                        number = before + count
                        if in_bytes:
                            rows = _of_bytes(uri, number, count - 1, image, captions)
                        else:
                            rows = make.of_image(
                                number, record[image], captions, image_key=image, caption_key=caption or "caption"
                            )
                        for row in rows:
                            yield count, row
        except (pa.ArrowException, OSError) as error:
            detail = (
                f"{name_of(uri)}: it cannot be read as Parquet after row {count} ({first_line(error)}); copy it again."
            )
            yield count + 1, bad_row(before + count + 1, name_of(uri), "damaged_parquet", detail)

    def _columns(self, uri: str, schema: "pa.Schema") -> tuple[str, str | None]:
        images = [self.image_key] if self.image_key is not None else IMAGE_COLUMNS
        captions = caption_keys(self.caption_key, CAPTION_COLUMNS)
        image, caption = (
            next((each for each in wanted if each in schema.names), None) for wanted in (images, captions)
        )
        if image is None:
            raise SourceError(f"{_lacks(uri, images, schema)}; name it as `image_key`.")
        if caption is None and captions and schema.names != [image]:
            raise SourceError(
                f"{_lacks(uri, captions, schema)}; name it as `caption_key`, or write `caption_key: {NO_CAPTIONS}` if "
                "these images have no captions."
            )
        return image, caption


def _lacks(uri: str, wanted: Sequence[str], schema: "pa.Schema") -> str:
    return f"{uri}: it has no column {' or '.join(wanted)} (columns: {', '.join(schema.names)})"


def _holds_bytes(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_struct(kind))


def _of_bytes(uri: str, number: int, row: int, column: str, captions: Sequence[Any]) -> Iterator[SourceRow]:
    location = str(Location(uri, row=row, column=column))
    image = f"{name_of(uri)}/{row}"
    where = f"{name_of(uri)}, row {number}"
    if not captions:
        yield uncaptioned_row(number, image, location, f"{where}: the list of captions is empty.")
    for caption in captions:
        yield caption_row(number, image, location, caption, where=where, key="caption")
