"""What a file's name alone says about an image, before anything is opened."""

from caploom.images.location import Location

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .avif .heic .heif .jp2 .jxl "
    ".svg .svgz".split()
)
"""Endings of image names; ingestion finds out whether such files really are images that can be decoded."""

_DRAWINGS = (".svg", ".svgz")


def refused_by_name(name: str) -> tuple[str, str] | None:
    """Why an image of that name is not accepted, as a reason and the rest of a sentence; None when it may be opened."""
    if not is_text(name):
        return "unusable_name", "the name is not UTF-8, which tables cannot hold; rename it."
    if name.lower().endswith(_DRAWINGS):
        return "svg_not_accepted", "SVG is a vector format and not a picture; render it to PNG first."
    if Location.parse(name).uri != name:
        return "unusable_name", "the name ends in what marks a position inside a container; rename it."
    return None


def is_text(text: str) -> bool:
    """Whether a text has a UTF-8 form: lone surrogates, which JSON and file names can contain, have none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def as_text(text: str) -> str:
    """The text with `?` where it has no UTF-8 form."""
    return text.encode("utf-8", "replace").decode("utf-8")
