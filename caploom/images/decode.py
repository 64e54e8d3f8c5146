"""Reading image files: every decode goes through here, so that a bad image is the same failure everywhere."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from caploom.errors import ImageFault as ImageFault  # who reads images meets it
from caploom.images.location import read_location
from caploom.storage.records import image_identity

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused: a bomb of a few kilobytes can ask for gigabytes (Pillow's bound)."""
_ORIENTATION = 0x0112


def read_image_file(location: str | Path) -> bytes:
    """The bytes of an image at a location (see `locations`); raises `ImageFault` when they cannot be had."""
    return read_location(str(location))


def read_identified_image(location: str | Path, image_id: str) -> bytes:
    """The bytes at a location that are still those of that identity; raises `ImageFault` like `read_image_file`."""
    data = read_image_file(location)
    if image_identity(data) != image_id:
        raise ImageFault("image_changed", f"{location}: the file is no longer the image that was ingested.")
    return data


def orientation_of(image: "Image") -> int:
    """How an opened image must be turned, 1 to 8 as EXIF counts; 1, not at all, where that is not said or damaged."""
    try:
        said = image.getexif().get(_ORIENTATION, 1)
    # Pillow's reading of damaged EXIF raises many kinds of error; the picture itself is not damaged by them.
    except Exception:  # noqa: BLE001
        return 1
    return said if isinstance(said, int) and 1 <= said <= 8 else 1


def turned(image: "Image", orientation: int) -> "Image":
    """The image turned upright. Pillow's `exif_transpose` also writes the EXIF again, and fails when it is damaged."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _in_eight_bits(image: "Image") -> "Image":
    """16-bit greys scaled to 8: Pillow's own conversion would make white of everything above 255."""
    if not image.mode.startswith("I"):
        return image
    from numpy import asarray, uint8
    from PIL import Image

    values = asarray(image)
    return Image.fromarray((values >> 8).astype(uint8)) if values.max(initial=0) > 255 else image.convert("L")


def decode_image(data: bytes, name: str, *, at_least: int | None = None) -> "Image":
    """Decode to RGB: really decoded, turned as EXIF says, transparency laid on white, the first frame of an animation.

    `name` names the image in the `ImageFault` that is raised when the bytes are no image, are cut off, or ask for more
    than `MAX_PIXELS`. With `at_least`, a JPEG may come at 1/2, 1/4 or 1/8 of its size, both sides no shorter than so
    many pixels: its decoder skips what a smaller image does not show, and is several times faster.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS below is the rule here
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageFault(
                        "image_too_large",
                        f"{name}: {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}.",
                    )
                if at_least is not None:
                    image.draft(None, (at_least, at_least))
                image.load()
                upright = _in_eight_bits(turned(image, orientation_of(image)))
                if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                    layer = upright.convert("RGBA")
                    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
                    return Image.alpha_composite(white, layer).convert("RGB")
                return upright.convert("RGB")
    except ImageFault:
        raise
    except UnidentifiedImageError:
        raise ImageFault("undecodable_image", f"{name}: it is of no image format that is known.") from None
    except Image.DecompressionBombError:
        raise ImageFault("image_too_large", f"{name}: it asks for more than {MAX_PIXELS:,} pixels.") from None
    # Pillow's decoders raise many kinds of error on damaged bytes (OSError, SyntaxError, struct.error, ...);
    # whichever it is, this one image is bad and the others are not.
    except Exception as error:  # noqa: BLE001
        raise ImageFault("undecodable_image", f"{name}: it is no image that can be decoded ({error}).") from None
