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
"""Images with more pixels are refused: a decompression bomb of a few kilobytes can need gigabytes (Pillow's limit)."""
_ORIENTATION = 0x0112


def read_image_file(location: str | Path) -> bytes:
    """The bytes of an image at a location (see `location`); raises `ImageFault` when they cannot be read."""
    return read_location(str(location))


def read_identified_image(location: str | Path, image_id: str) -> bytes:
    """The same, and raises `ImageFault` when the bytes no longer have that identity."""
    data = read_image_file(location)
    if image_identity(data) != image_id:
        raise ImageFault("image_changed", f"{location}: the file is no longer the image that was ingested.")
    return data


def orientation_of(image: "Image") -> int:
    """An opened image's EXIF orientation, 1 to 8; 1, upright, when it is missing or damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    # Pillow raises many kinds of error for damaged EXIF; the picture itself may be intact.
    except Exception:  # noqa: BLE001
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


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
    """16-bit greys scaled to 8 bits: Pillow's own conversion would turn everything above 255 white."""
    if not image.mode.startswith("I"):
        return image
    from numpy import asarray, uint8
    from PIL import Image

    values = asarray(image)
    return Image.fromarray((values >> 8).astype(uint8)) if values.max(initial=0) > 255 else image.convert("L")


def decode_image(data: bytes, name: str, *, at_least: int | None = None) -> "Image":
    """Decode to RGB, completely: turned as EXIF says, transparency on white, the first frame of an animation.

    `name` names the image in the `ImageFault` that is raised when the bytes are not an image, are cut off, or need more
    than `MAX_PIXELS`. With `at_least`, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, with both sides at least
    that many pixels: its decoder skips the detail that a smaller image does not show, and is several times faster.
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
        raise ImageFault("undecodable_image", f"{name}: it is not in a known image format.") from None
    except Image.DecompressionBombError:
        raise ImageFault("image_too_large", f"{name}: it has more than {MAX_PIXELS:,} pixels.") from None
    # Pillow's decoders raise many kinds of error on damaged bytes (OSError, SyntaxError, struct.error, ...);
    # whichever it is, only this one image is bad.
    except Exception as error:  # noqa: BLE001
        raise ImageFault("undecodable_image", f"{name}: it cannot be decoded as an image ({error}).") from None
