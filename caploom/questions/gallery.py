"""The gallery: a few images with all captions of each, side by side, as Markdown."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from caploom.common.text import markdown_rows, markdown_text
from caploom.images.decode import ImageFault, decode_image, read_image_file

_THUMBNAIL = 128  # pixels, the longer side


@dataclass(frozen=True)
class GalleryRow:
    """An image and its captions, as (source, text) pairs in the order to be shown."""

    path: str
    captions: tuple[tuple[str, str], ...]


def thumbnail_uri(path: str) -> str | None:
    """A small picture as a `data:` URI, so that a page needs no other file; None when the image is gone."""
    from PIL import ImageOps

    try:
        image = decode_image(read_image_file(path), path)
    except ImageFault:
        return None
    buffer = io.BytesIO()
    ImageOps.contain(image, (_THUMBNAIL, _THUMBNAIL)).save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue())


def data_uri(png: bytes) -> str:
    """PNG bytes as a `data:` URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def gallery_markdown(rows: Sequence[GalleryRow]) -> str:
    """A Markdown table, one row per image, one column per source. Captions are shown as text, whatever is in them."""
    sources = list(dict.fromkeys(source for row in rows for source, _ in row.captions))
    shown = []
    for row in rows:
        uri = thumbnail_uri(row.path)
        picture = f"![image]({uri})" if uri else "(gone)"
        texts = (
            " // ".join(markdown_text(text) for origin, text in row.captions if origin == source) for source in sources
        )
        shown.append([picture, *texts])
    return "\n".join(markdown_rows(["image", *map(markdown_text, sources)], shown))
