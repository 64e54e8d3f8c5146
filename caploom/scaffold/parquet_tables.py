"""Which columns of a Parquet file have images and captions."""

from typing import TYPE_CHECKING, Any

from caploom.common.text import first_line
from caploom.errors import SourceError
from caploom.readers.caption_tables import NO_CAPTIONS
from caploom.readers.parquet_images import CAPTION_COLUMNS, IMAGE_COLUMNS
from caploom.storage.paths import open_uri

if TYPE_CHECKING:
    import pyarrow as pa

_LIKE_A_CAPTION = ("caption", "text", "description", "sentence", "title")


def look_at_parquet(uri: str) -> dict[str, Any] | None:
    """The parquet reader's keys for a file that has images in it; None when it has none.

    Raises `SourceError` when it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_uri(uri) as opened, pq.ParquetFile(opened) as file:
            schema = file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{uri}: it cannot be read as Parquet ({first_line(error)}); copy it again.") from None
    images = [name for name in schema.names if _may_be_image(schema.field(name).type)]
    if not images:
        return None
    image = next((name for name in IMAGE_COLUMNS if name in images), images[0])
    found_by_itself = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    keys: dict[str, Any] = {} if image == found_by_itself else {"image_key": image}
    if not any(name in schema.names for name in CAPTION_COLUMNS):
        caption = _caption(schema)
        if caption is not None:
            keys["caption_key"] = caption
        elif schema.names != [image]:
            keys["caption_key"] = NO_CAPTIONS
    return keys


def _may_be_image(kind: "pa.DataType") -> bool:
    """Bytes, or the hub's `{bytes, path}`."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return "bytes" in {kind.field(at).name for at in range(kind.num_fields)}
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _caption(schema: "pa.Schema") -> str | None:
    """A column of texts, or of lists of them, whose name says that these are captions."""
    import pyarrow.types as types

    def holds_text(kind: "pa.DataType") -> bool:
        if types.is_list(kind) or types.is_large_list(kind):
            return holds_text(kind.value_type)
        return bool(types.is_string(kind) or types.is_large_string(kind))

    texts = [name for name in schema.names if holds_text(schema.field(name).type)]
    return next((name for like in _LIKE_A_CAPTION for name in texts if like in name.lower()), None)
