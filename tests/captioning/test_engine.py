import threading
import time

import pytest
from PIL import Image
from small_factory import ColourBackend, colour_name, picture, write_pictures

from caploom.captioning.backend import ImageRef
from caploom.errors import CaptionerError
from caploom.storage.records import image_identity


@pytest.fixture
def refs(tmp_path):
    return write_pictures(tmp_path, 12)


def run(backend, refs):
    captioned, failed = [], []
    for chunk in backend.caption(refs):
        captioned += chunk.captioned
        failed += chunk.failed
    return captioned, failed


def assert_each_has_its_own(captioned):
    for item in captioned:
        number = int(item.ref.image.removesuffix(".png"))
        assert item.generation.text.startswith(f"A {colour_name(number)} square.")


def test_one_bad_image_of_96_in_each_position_shifts_no_caption(tmp_path):
    refs = write_pictures(tmp_path, 96)
    for bad, ref in enumerate(refs):
        good = (tmp_path / ref.image).read_bytes()
        (tmp_path / ref.image).write_bytes(b"" if bad % 2 else good[:40])
        captioned, failed = run(ColourBackend(batch_size=96, prefetch=bad % 3), refs)
        assert [item.ref for item in failed] == [ref]
        assert failed[0].reason in ("empty_image", "image_changed")
        assert [item.ref for item in captioned] == refs[:bad] + refs[bad + 1 :]
        assert_each_has_its_own(captioned)
        (tmp_path / ref.image).write_bytes(good)


def strange(number, tmp_path, colour=(1, 2, 3)):
    """A picture that decodes and that the captioner cannot take."""
    image, path = picture(number), tmp_path / f"{number}.png"
    image.putpixel((8, 8), colour)
    image.save(path)
    return ImageRef(image_identity(path.read_bytes()), str(path), path.name)


@pytest.mark.parametrize("bad", range(12))
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_image_that_the_model_cannot_take_fails_alone(refs, bad, prefetch, tmp_path):
    refs[bad] = strange(bad, tmp_path)
    captioned, failed = run(ColourBackend(prefetch=prefetch), refs)
    assert [(item.ref, item.reason) for item in failed] == [(refs[bad], "generation_error")]
    assert "a colour that it does not know" in failed[0].detail
    assert [item.ref for item in captioned] == refs[:bad] + refs[bad + 1 :]
    assert_each_has_its_own(captioned)


def test_an_image_that_the_processor_cannot_take_fails_alone(refs):
    class Picky(ColourBackend):
        def prepare(self, images, refs):
            if any(ref.image == "7.png" for ref in refs):
                raise TypeError("no such image")
            return super().prepare(images, refs)

    captioned, failed = run(Picky(), refs)
    assert [(item.ref.image, item.reason) for item in failed] == [("7.png", "generation_error")]
    assert len(captioned) == 11


def test_an_image_changed_since_it_was_ingested_is_not_captioned_under_its_old_identity(refs, tmp_path):
    picture(99).save(tmp_path / "3.png")
    captioned, failed = run(ColourBackend(), refs)
    assert [(item.ref, item.reason) for item in failed] == [(refs[3], "image_changed")]
    assert refs[3] not in [item.ref for item in captioned]


def test_a_captioner_that_says_nothing_is_a_failure(refs):
    class Silent(ColourBackend):
        def look(self, image):
            generation = super().look(image)
            return generation if image.getpixel((0, 0))[0] != 2 else type(generation)(" \n", 0, "stop")

    captioned, failed = run(Silent(), refs)
    assert [(item.ref, item.reason) for item in failed] == [(refs[2], "empty_caption")]
    assert len(captioned) == 11


def test_a_captioner_that_fails_on_everything_is_not_taken_for_bad_images(tmp_path):
    class Broken(ColourBackend):
        def generate(self, prepared):
            raise RuntimeError("device-side assert triggered")

    with pytest.raises(CaptionerError, match=r"failed on 64 images in a row.*device-side assert"):
        run(Broken(batch_size=16), write_pictures(tmp_path, 80))


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_batches_have_the_set_size(refs, prefetch):
    backend = ColourBackend(batch_size=5, prefetch=prefetch)
    run(backend, refs)
    assert [len(call) for call in backend.calls] == [5, 5, 2]


class Tight(ColourBackend):
    """Has memory for five images."""

    def generate(self, prepared):
        if len(prepared) > 5:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().generate(prepared)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_when_memory_runs_out_the_batch_is_halved_and_the_size_remembered(tmp_path, prefetch):
    refs = write_pictures(tmp_path, 40)
    backend = Tight(batch_size=16, prefetch=prefetch)
    captioned, failed = run(backend, refs)
    assert [item.ref for item in captioned] == refs
    assert not failed
    assert_each_has_its_own(captioned)
    assert backend.engine.batch_size == 4
    backend.calls.clear()
    run(backend, refs[:8])
    assert [len(call) for call in backend.calls] == [4, 4]


def test_an_image_that_no_memory_holds_is_named_so(refs):
    class None_(ColourBackend):
        def generate(self, prepared):
            if any(image.getpixel((0, 0))[0] == 3 for image, _ in prepared):
                raise MemoryError
            return super().generate(prepared)

    captioned, failed = run(None_(), refs)
    assert [(item.ref.image, item.reason) for item in failed] == [("3.png", "out_of_memory")]
    assert len(captioned) == 11


def test_images_with_prompts_of_like_length_share_a_batch(refs):
    class Long(ColourBackend):
        def length(self, ref):
            return 1 + int(ref.image.removesuffix(".png")) % 3

    backend = Long()
    captioned, _ = run(backend, refs)
    assert_each_has_its_own(captioned)
    place = {ref.image_id: int(ref.image.removesuffix(".png")) % 3 for ref in refs}
    assert [{place[image_id] for image_id in call} for call in backend.calls] == [{2}, {1}, {0}]


def test_decoding_goes_on_while_the_model_generates(tmp_path):
    """With both sides taking 30 ms a batch, one after the other would take twice as long."""

    class Slow(ColourBackend):
        def __init__(self, prefetch):
            super().__init__(batch_size=4, prefetch=prefetch)
            self.preparing = set()

        def prepare(self, images, refs):
            self.preparing.add(threading.current_thread().name)
            time.sleep(0.03)
            return super().prepare(images, refs)

        def generate(self, prepared):
            time.sleep(0.03)
            return super().generate(prepared)

    refs = write_pictures(tmp_path, 80)
    seconds = {}
    for prefetch in (0, 1):
        backend, started = Slow(prefetch), time.perf_counter()
        run(backend, refs)
        seconds[prefetch] = time.perf_counter() - started
    assert seconds[0] >= 20 * 0.06
    assert seconds[1] < 0.8 * seconds[0]
    assert threading.current_thread().name not in backend.preparing


def test_no_more_batches_are_opened_ahead_than_set(tmp_path):
    class Counting(ColourBackend):
        ahead = most = 0

        def prepare(self, images, refs):
            self.ahead += 1
            self.most = max(self.most, self.ahead)
            return super().prepare(images, refs)

        def generate(self, prepared):
            time.sleep(0.01)
            self.ahead -= 1
            return super().generate(prepared)

    backend = Counting(batch_size=4, prefetch=2)
    run(backend, write_pictures(tmp_path, 80))
    assert 1 < backend.most <= 3  # two ahead and the one that generates


def test_what_is_left_early_leaves_no_thread_behind(refs):
    chunks = ColourBackend().caption(refs)
    next(chunks)
    chunks.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]


def test_an_image_of_100_megapixels_is_captioned(tmp_path):
    image = Image.new("RGB", (10_000, 10_000), (30, 30, 220))
    image.save(tmp_path / "huge.jpg", quality=30)
    image.resize((16, 16)).save(tmp_path / "small.png")
    refs = [
        ImageRef(image_identity((tmp_path / name).read_bytes()), str(tmp_path / name), name)
        for name in ("huge.jpg", "small.png")
    ]

    class Near(ColourBackend):
        def look(self, image):
            return super().look(image.resize((16, 16)).point(lambda value: 220 if value > 125 else 30))

    captioned, failed = run(Near(), refs)
    assert [item.generation.text[:6] for item in captioned] == ["A blue", "A blue"]
    assert not failed


def test_a_raw_caption_s_tags_do_not_become_the_prompt_s():
    ref = ImageRef("", "", "", raw_caption="a <b>dog</b> <image> 3 < 4 <|im_end|> > end")
    assert ref.prompted("<image> {raw_caption}:") == "<image> a  dog    3 < 4   > end:"
