"""What the check of ingest accepts, and what it says of the rest."""

import io
import random
import struct
import zlib

import imagehash
import numpy as np
import pytest
from PIL import Image

from caploom.images.check import NO_HASH, check_image, perceptual_hash
from caploom.images.decode import ImageFault, decode_image


def photo(seed: int = 0, width: int = 200, height: int = 150) -> Image.Image:
    grain = np.random.default_rng(seed).integers(0, 255, (height // 15, width // 15, 3), dtype=np.uint8)
    return Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def reason(data: bytes) -> str | None:
    try:
        check_image(data, "x")
    except ImageFault as fault:
        assert str(fault).startswith("x: ")
        return fault.reason
    return None


JPEGS = {
    "4:2:0": encoded(photo(), subsampling=2),
    "4:4:4": encoded(photo(), subsampling=0),
    "progressive": encoded(photo(), progressive=True),
    "grey": encoded(photo().convert("L")),
    "cmyk": encoded(photo().convert("CMYK")),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_every_truncated_jpeg_is_caught(kind):
    data, choose = JPEGS[kind], random.Random(1)
    assert reason(data) is None
    # Even its last two bytes are no padding: they say where the picture ends.
    for end in [len(data) - 1, len(data) - 2, *(choose.randrange(3, len(data) - 2) for _ in range(60))]:
        found = reason(data[:end])
        assert found in ("truncated_image", "undecodable_image") or (kind == "cmyk" and end >= len(data) - 2)


@pytest.mark.parametrize("kind", JPEGS)
def test_what_it_accepts_the_later_stages_can_decode(kind):
    data, choose = JPEGS[kind], random.Random(2)
    for _ in range(40):
        damaged = bytearray(data)
        damaged[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
        if reason(bytes(damaged)) is None:
            decode_image(bytes(damaged), "x")


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats_are_decoded_whole(form):
    data = encoded(photo(), form)
    assert reason(data) is None
    for share in (0.3, 0.6, 0.95):
        assert reason(data[: int(len(data) * share)]) is not None, share


def test_padding_behind_the_picture_is_harmless():
    assert reason(JPEGS["4:2:0"] + b"\0" * 5_000) is None
    marker = JPEGS["4:2:0"].rindex(b"\xff\xd9")
    assert reason(JPEGS["4:2:0"][:marker] + b"\0\0\0\0" + JPEGS["4:2:0"][marker:]) is None  # "extraneous bytes"


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it is 60,000 x 60,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def jpeg_bomb() -> bytes:
    data = bytearray(JPEGS["4:2:0"])
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"no image at all", "undecodable_image"),
        (b"\xff\xd8\xff and then nothing of a JPEG", "undecodable_image"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "svg_not_accepted"),
        (b"  <svg width='9'/>", "svg_not_accepted"),
        (b"%PDF-1.4", "undecodable_image"),
        (bomb(), "image_too_large"),
        (jpeg_bomb(), "image_too_large"),
    ],
)
def test_what_is_no_usable_image_has_its_reason(data, expected):
    assert reason(data) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_and_hash_are_of_the_upright_picture(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(), quality=95, exif=exif)
    upright = decode_image(data, "x")
    checked = check_image(data, "x")
    assert (checked.width, checked.height) == upright.size
    assert (checked.phash ^ check_image(encoded(upright, "PNG"), "x").phash).bit_count() <= 4


def test_the_hash_is_imagehash_s():
    for seed in range(10):
        small = photo(seed).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
        theirs = int(str(imagehash.phash(small)), 16)
        assert perceptual_hash(np.asarray(small, np.float64)) == theirs


def test_a_plain_colour_has_no_hash():
    assert check_image(encoded(Image.new("RGB", (50, 50), (200, 10, 10)), "PNG"), "x").phash == NO_HASH


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + data[2:]


def rotated(**options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(), exif=exif, **options)


XMP = (
    b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
    b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize(
    "data",
    [
        with_segment(JPEGS["4:2:0"], 0xE1, XMP),
        with_segment(with_segment(rotated(), 0xEF, b"q" * 60_000), 0xEF, b"q" * 60_000),
        rotated().replace(struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0), struct.pack(">HHI4s", 0x0112, 2, 4, b"abc\0")),
    ],
    ids=["in XMP alone", "far behind", "as a text"],
)
def test_the_check_turns_a_picture_as_the_later_stages_do(data):
    checked = check_image(data, "x")
    assert (checked.width, checked.height) == decode_image(data, "x").size


def test_a_picture_whose_exif_is_damaged_is_a_picture():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    data, choose = encoded(photo(), exif=exif), random.Random(9)
    for _ in range(1_500):
        damaged = bytearray(data)
        damaged[choose.randrange(20, 20 + data.index(b"\xff\xdb"))] = choose.randrange(256)
        if reason(bytes(damaged)) is None:
            decode_image(bytes(damaged), "x")


@pytest.mark.parametrize("exif", [False, True])
def test_the_bound_on_pixels_is_the_later_stages_bound(exif):
    data = bytearray(rotated() if exif else JPEGS["4:2:0"])
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", 13_500, 14_000)
    assert reason(bytes(data)) == "image_too_large"
