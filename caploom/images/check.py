"""Whether an image really decodes, how large it is and what it looks like: all that ingestion needs from its bytes.

A JPEG is decoded at an eighth of its size: that reads every coded coefficient, so truncation is always found, and
skips most of the arithmetic. Other formats are decoded whole.
"""

import io
import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from caploom.errors import ImageFault
from caploom.images.decode import MAX_PIXELS, decode_image, orientation_of, turned

if TYPE_CHECKING:
    from PIL.Image import Image

NO_HASH = 0
"""The perceptual hash of a picture without features, a plain colour: it counts as similar to no other."""

_HASH_SIDE = 32  # pixels
_FLAT = 2.0  # grey levels of standard deviation
_TURNED = {5, 6, 7, 8}  # orientations that swap width and height
_START_OF_SCAN = b"\xda"
# Cameras pad their files, and phones append data that no decoder reads: libjpeg warns, but nothing is missing.
_HARMLESS = ("extraneous bytes before marker",)
_CUT_OFF = ("premature end",)


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that decodes.

    Attributes:
        width: pixels, turned as EXIF says.
        height: pixels, turned as EXIF says.
        phash: the 64-bit perceptual hash of Zauner (2010), as `imagehash.phash` has it: pictures that look alike differ
            in few bits. `NO_HASH` of a picture without features.
    """

    width: int
    height: int
    phash: int


def check_image(data: bytes, name: str) -> CheckedImage:
    """Decode an image; raises `ImageFault` naming it when its bytes are no image, cut off, damaged or too large.

    Example:
        >>> checked = check_image(Path("images/cat.png").read_bytes(), "cat.png")
        >>> checked.width, checked.height
        (16, 16)
    """
    if data[:3] == b"\xff\xd8\xff":
        return _check_jpeg(data, name)
    if _is_svg(data):
        raise ImageFault(
            "svg_not_accepted", f"{name}: SVG is a vector format and not a picture; render it to PNG first."
        )
    return _measured(decode_image(data, name))


def perceptual_hash(grey: np.ndarray) -> int:
    """The hash of a grey picture, float of shape (32, 32): which of its 64 lowest frequencies exceed their median."""
    if grey.std() < _FLAT:
        return NO_HASH
    cosines = _cosines()
    low = cosines @ grey @ cosines.T
    ordered = np.sort(low, axis=None)  # the middle value is the median; numpy's own function takes three times as long
    median = (ordered[31] + ordered[32]) / 2
    return int.from_bytes(np.packbits(low > median).tobytes(), "big")


def _check_jpeg(data: bytes, name: str) -> CheckedImage:
    import simplejpeg
    from PIL import Image

    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # the latter of chroma that it has no name for
        return _measured(decode_image(data, name))
    if width * height > MAX_PIXELS:
        raise ImageFault("image_too_large", f"{name}: {width} x {height} pixels are more than {MAX_PIXELS:,}.")
    try:
        grey = simplejpeg.decode_jpeg(
            data, "GRAY", fastdct=True, fastupsample=True, min_height=_HASH_SIDE, min_width=_HASH_SIDE, strict=True
        )
    except (ValueError, KeyError) as error:
        return _after_complaint(data, name, str(error))
    upright = Image.fromarray(grey[..., 0])
    orientation = _orientation(data, name)
    if orientation != 1:
        upright = turned(upright, orientation)
    if orientation in _TURNED:
        width, height = height, width
    return CheckedImage(width, height, _hash_of(upright))


def _after_complaint(data: bytes, name: str, complaint: str) -> CheckedImage:
    """Handle an image that the strict decoder refused: it is damaged, or only the other decoder supports it."""
    lower = complaint.lower()
    if any(each in lower for each in _CUT_OFF):
        raise ImageFault("truncated_image", f"{name}: the JPEG ends before the picture does; copy it again.")
    # Colours that it cannot convert to grey (CMYK) or codings that it was not built with: the full decoder decides.
    image = decode_image(data, name)
    if "corrupt jpeg data" in lower and not any(each in lower for each in _HARMLESS):
        raise ImageFault("corrupt_image", f"{name}: the JPEG is damaged ({complaint.strip()}); copy it again.")
    return _measured(image)


def _measured(image: "Image") -> CheckedImage:
    return CheckedImage(image.width, image.height, _hash_of(image.convert("L")))


def _hash_of(grey: "Image") -> int:
    from PIL import Image

    small = grey.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.LANCZOS)
    return perceptual_hash(np.asarray(small, np.float64))


def _orientation(data: bytes, name: str) -> int:
    head = _before_the_picture(data)
    if b"Exif\0\0" not in head and b"Orientation" not in head:  # the latter in XMP, which Pillow reads as well
        return 1
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is the rule
            with Image.open(io.BytesIO(data)) as image:
                return orientation_of(image)
    except UnidentifiedImageError:
        raise ImageFault("undecodable_image", f"{name}: it is not in a known image format.") from None


def _before_the_picture(data: bytes) -> bytes:
    """The segments of a JPEG before its coded picture; the whole file when they are malformed."""
    at = 2
    while data[at : at + 1] == b"\xff":
        if data[at + 1 : at + 2] == _START_OF_SCAN:
            return data[:at]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data


def _is_svg(data: bytes) -> bool:
    head = data[:1024].lstrip().lower()
    return head.startswith((b"<svg", b"<?xml", b"<!doctype svg")) and b"<svg" in data[:65_536].lower()


@cache
def _cosines() -> np.ndarray:
    """The first eight rows of the discrete cosine transform of 32 values, float of shape (8, 32)."""
    odd = 2 * np.arange(_HASH_SIDE) + 1
    return 2 * np.cos(np.pi * odd[None] * np.arange(8)[:, None] / (2 * _HASH_SIDE))
