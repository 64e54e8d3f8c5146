"""Locations: where the bytes of one image are, in a file of their own or inside a container, as one text.

`/a/b.jpg` or `s3://bucket/b.jpg` is a file; `/a/b.tar#bytes=1536+20480` is 20,480 bytes of a file that begin at its
byte 1,536: a member of a tar that is not compressed, or an image of a pack; `/a/b.parquet#row=17:image` is the value of
the column `image` in row 17, counted from 0. A location is what tables call the `path` of an image.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from caploom.errors import ImageFault, SourceError
from caploom.storage.paths import is_url, open_uri, read_range

if TYPE_CHECKING:
    from caploom.images.parquet_values import ColumnValues

_RANGE = re.compile(r"#bytes=(\d+)\+(\d+)\Z")
_ROW = re.compile(r"#row=(\d+):(.+)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Location:
    """Where an image lies: a file or a container, and in it a range of bytes, or a row and a column, or neither.

    Attributes:
        uri: path or URL of the file, or of the container.
        offset: first byte of the range; None without a range.
        length: bytes of the range; None without a range.
        row: row of a Parquet file, from 0; None in other files.
        column: column of a Parquet file; None in other files.
    """

    uri: str
    offset: int | None = None
    length: int | None = None
    row: int | None = None
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Location":
        """The location that a text describes."""
        if "#" not in text:
            return cls(text)
        if found := _RANGE.search(text):
            return cls(text[: found.start()], offset=int(found[1]), length=int(found[2]))
        if found := _ROW.search(text):
            return cls(text[: found.start()], row=int(found[1]), column=found[2])
        return cls(text)

    def __str__(self) -> str:
        if self.offset is not None:
            return f"{self.uri}#bytes={self.offset}+{self.length}"
        if self.row is not None:
            return f"{self.uri}#row={self.row}:{self.column}"
        return self.uri

    @property
    def is_local_range_or_file(self) -> bool:
        """Whether any stage may read it repeatedly: a local file, or a range of one."""
        return self.row is None and not is_url(self.uri)


def read_location(text: str) -> bytes:
    """The bytes at a location; raises `ImageFault` when they cannot be read or there are none."""
    location = Location.parse(text)
    data = _file_bytes(location) if location.row is None else _parquet_value(location)
    if not data:
        raise ImageFault("empty_image", f"{text}: the file has no bytes.")
    if location.length is not None and len(data) != location.length:
        raise ImageFault("image_cut_off", f"{text}: the file ends before the image does; copy it again.")
    return data


def _file_bytes(location: Location) -> bytes:
    try:
        if is_url(location.uri) and location.offset is not None:
            return read_range(location.uri, location.offset, location.length or 0)
        with open_uri(location.uri) if is_url(location.uri) else open(location.uri, "rb") as file:  # noqa: PTH123
            if location.offset is None:
                return file.read()
            file.seek(location.offset)
            return file.read(location.length or 0)
    except FileNotFoundError:
        raise ImageFault("missing_image", f"{location.uri}: there is no such file.") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise ImageFault("unreadable_image", f"{location.uri}: it cannot be read ({why}).") from None
    except SourceError as error:
        raise ImageFault("unreadable_image", str(error)) from None


def _parquet_value(location: Location) -> bytes:
    import pyarrow as pa

    try:
        value = _column(location.uri, location.column or "").value(location.row or 0)
        return bytes((value["bytes"] if isinstance(value, dict) else value) or b"")
    except IndexError:
        raise ImageFault("missing_image", f"{location}: the file has no such row.") from None
    except (OSError, pa.ArrowException, SourceError, TypeError, KeyError) as error:
        raise ImageFault("unreadable_image", f"{location}: it cannot be read ({error}).") from None


@lru_cache(maxsize=2)  # ingestion reads one file after another
def _column(uri: str, column: str) -> "ColumnValues":
    from caploom.images.parquet_values import ColumnValues

    return ColumnValues(uri, column)
