import io

import pytest
from PIL import Image

from caploom.images import decode as images
from caploom.images.decode import ImageFault, decode_image, read_image_file


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new(mode, (4, 4))
    decoded = decode_image(encoded(image, "TIFF" if mode == "CMYK" else "PNG"), "x")
    assert (decoded.mode, decoded.size) == ("RGB", (4, 4))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight_and_not_white(format):
    image = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 32_768, 65_535)):
        image.putpixel((x, 0), value)
    decoded = decode_image(encoded(image, format), "x")
    assert [decoded.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_cmyk_keeps_its_colours():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixel = decode_image(encoded(red, "JPEG", quality=95), "x").getpixel((4, 4))
    assert pixel[0] > 200
    assert max(pixel[1:]) < 60


def test_an_alpha_channel_is_laid_on_white_by_its_share():
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert decode_image(encoded(half), "x").getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(mode):
    image = Image.new(mode, (2, 2))
    assert decode_image(encoded(image), "x").getpixel((0, 0)) == (255, 255, 255)


def test_a_transparent_palette_entry_lies_on_white():
    image = Image.new("P", (2, 2), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    assert decode_image(encoded(image, transparency=0), "x").getpixel((0, 0)) == (255, 255, 255)


def test_an_image_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert decode_image(encoded(Image.new("RGB", (4, 2)), "JPEG", exif=exif), "x").size == (2, 4)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (2, 2), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data, "x").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_cut_off_image_is_a_fault_at_any_length(format):
    data = encoded(Image.effect_noise((64, 64), 80).convert("RGB"), format)
    for length in range(1, len(data) - 16, len(data) // 20):
        with pytest.raises(ImageFault) as fault:
            decode_image(data[:length], "cut")
        assert fault.value.reason == "undecodable_image"


def test_too_many_pixels_are_a_fault_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    with pytest.raises(ImageFault) as fault:
        decode_image(encoded(Image.new("RGB", (10, 10))), "big.png")
    assert fault.value.reason == "image_too_large"


def test_text_is_no_image():
    with pytest.raises(ImageFault, match=r"note\.txt"):
        decode_image(b"hello", "note.txt")


def test_files_that_are_missing_empty_or_a_folder_are_faults(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    reasons = {}
    for name in ("none.png", "empty.png", "folder.png"):
        with pytest.raises(ImageFault) as fault:
            read_image_file(tmp_path / name)
        reasons[name] = fault.value.reason
    assert reasons == {"none.png": "missing_image", "empty.png": "empty_image", "folder.png": "unreadable_image"}


def test_the_same_fault_is_told_in_the_same_words(tmp_path):
    told = set()
    for _ in range(3):
        with pytest.raises(ImageFault) as fault:
            decode_image(b"hello", "note.txt")
        told.add(fault.value.detail)
    assert told == {"note.txt: it is not in a known image format."}
