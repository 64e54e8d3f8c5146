"""The gallery: a few images with everything that was said of each, side by side, as Markdown."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from caploom.common.text import markdown_text
from caploom.images.decode import ImageFault, decode_image, read_image_file

_THUMBNAIL = 128  # pixels, the longer side


@dataclass(frozen=True)
class Exhibit:
    """An image and what was said of it: (who, text) pairs in the order to be shown."""

    path: str
    said: tuple[tuple[str, str], ...]


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


def gallery_markdown(exhibits: Sequence[Exhibit]) -> str:
    """A Markdown table, one row an image, one column a speaker. Captions are shown as text, whatever is in them."""
    speakers = _speakers(exhibits)
    lines = ["| image | " + " | ".join(markdown_text(speaker) for speaker in speakers) + " |"]
    lines.append("|" + " --- |" * (len(speakers) + 1))
    for exhibit in exhibits:
        uri = thumbnail_uri(exhibit.path)
        picture = f"![image]({uri})" if uri else "(gone)"
        texts = (
            " // ".join(markdown_text(text) for who, text in exhibit.said if who == speaker) for speaker in speakers
        )
        lines.append(f"| {picture} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _speakers(exhibits: Sequence[Exhibit]) -> list[str]:
    return list(dict.fromkeys(who for exhibit in exhibits for who, _ in exhibit.said))
