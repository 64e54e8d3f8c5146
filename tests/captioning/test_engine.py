import pytest
from small_factory import ColourBackend, colour_name, picture

from caploom.captioning.engine import ImageRef, caption_images
from caploom.records import image_identity


@pytest.fixture
def refs(tmp_path):
    made = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        picture(number).save(path)
        made.append(ImageRef(image_identity(path.read_bytes()), str(path), path.name))
    return made


def run(backend, refs, batch_size=4):
    captioned, failed = [], []
    for done, broken in caption_images(backend, refs, batch_size):
        captioned += done
        failed += broken
    return captioned, failed


@pytest.mark.parametrize("bad", range(12))
def test_one_bad_image_in_any_place_shifts_no_caption(refs, bad, tmp_path):
    (tmp_path / f"{bad}.png").write_bytes(b"")
    captioned, failed = run(ColourBackend(), refs)
    assert [item.ref for item in failed] == [refs[bad]]
    assert failed[0].reason == "empty_image"
    assert len(captioned) == 11
    for item in captioned:
        number = int(item.ref.image.removesuffix(".png"))
        assert item.generation.text.startswith(f"A {colour_name(number)} square.")


@pytest.mark.parametrize("bad", [0, 5, 11])
def test_an_image_that_the_model_cannot_take_fails_alone(refs, bad, tmp_path):
    strange = picture(bad)
    strange.putpixel((8, 8), (1, 2, 3))
    strange.save(tmp_path / f"{bad}.png")
    refs[bad] = ImageRef(image_identity((tmp_path / f"{bad}.png").read_bytes()), refs[bad].path, refs[bad].image)
    captioned, failed = run(ColourBackend(), refs)
    assert [(item.ref, item.reason) for item in failed] == [(refs[bad], "generation_error")]
    assert "a colour that it does not know" in failed[0].detail
    assert len(captioned) == 11


def test_an_image_changed_since_it_was_ingested_is_not_captioned_under_its_old_identity(refs, tmp_path):
    picture(99).save(tmp_path / "3.png")
    captioned, failed = run(ColourBackend(), refs)
    assert [(item.ref, item.reason) for item in failed] == [(refs[3], "image_changed")]
    assert refs[3] not in [item.ref for item in captioned]


def test_a_captioner_that_says_nothing_is_a_failure(refs):
    class Silent(ColourBackend):
        def _look(self, image):
            generation = super()._look(image)
            return generation if image.getpixel((0, 0))[0] != 2 else type(generation)("", 0, "stop")

    captioned, failed = run(Silent(), refs)
    assert [(item.ref, item.reason) for item in failed] == [(refs[2], "empty_caption")]
    assert len(captioned) == 11


def test_batches_have_the_set_size(refs):
    backend = ColourBackend()
    run(backend, refs, batch_size=5)
    assert [len(call) for call in backend.calls] == [5, 5, 2]
