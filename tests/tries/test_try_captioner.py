"""Trying a captioner: what it costs, what is kept of it, and how it is shown."""

import uuid

import pytest
from asked_factory import captioned, write_factory
from PIL import Image
from small_factory import ColourBackend, picture

from caploom.errors import CaploomError, ConfigError
from caploom.stages.captions import caption_shard
from caploom.stages.raw_pairs import ingested_shards
from caploom.stages.shards import shard_names
from caploom.tries.try_captioner import try_captioner

SAID = "A red square. It is said to hide a dragon."


class Loads:
    """Loads a captioner of colours, and keeps what it loaded."""

    def __init__(self):
        self.backends = []

    def __call__(self, settings, store):
        self.backends.append(ColourBackend())
        return self.backends[-1]

    @property
    def images(self):
        """How many images the captioners were asked about."""
        return sum(len(batch) for backend in self.backends for batch in backend.calls)


@pytest.fixture
def load():
    return Loads()


def nothing(settings, store):
    raise AssertionError("a captioner was loaded")


def test_only_the_first_shard_is_ingested_and_only_the_images_are_generated(load, write_source, make_factory):
    factory = make_factory(write_source(25))
    tried = try_captioner(factory, "colours", 3, load=load)
    assert (tried.shard, tried.generated, load.images) == ("shard-00000", 3, 3)
    assert [image.image for image in tried.images] == ["0000.png", "0001.png", "0002.png"]
    assert tried.images[0].text == SAID
    assert tried.images[0].parts("first") == ("", "A red square.", " It is said to hide a dragon.")
    assert len(shard_names(factory)) == 3
    assert [each.manifest.configuration["shard"] for each in ingested_shards(factory)] == ["shard-00000"]


def test_a_second_try_generates_nothing_and_a_larger_one_only_the_rest(load, write_source, make_factory):
    factory = make_factory(write_source(12))
    first = try_captioner(factory, "colours", 3, load=load)
    again = try_captioner(factory, "colours", 3, load=nothing)
    assert (again.images, again.generated) == (first.images, 0)
    assert try_captioner(factory, "colours", 5, load=load).generated == 2
    made = caption_shard(factory, "colours", "shard-00000", ColourBackend)
    assert (made.manifest.summary["captions"], made.manifest.summary["generated"]) == (10, 5)


def test_a_shard_that_a_run_has_captioned_is_shown_as_it_is(own_captioned):
    tried = try_captioner(own_captioned, "colours", 4, load=nothing)
    assert (tried.generated, tried.images[0].text) == (0, SAID)


def test_a_failed_image_is_shown_with_its_reason(load, write_source, make_factory):
    source = write_source(3)
    Image.new("RGB", (16, 16), (1, 2, 3)).save(source / "images" / "0001.png")  # a colour that it does not know
    factory = make_factory(source)
    tried = try_captioner(factory, "colours", 3, load=load)
    failed = tried.images[1]
    assert (tried.failed, failed.text) == (1, "")
    assert failed.reason and failed.detail
    assert f"no caption ({failed.reason}): " in repr(tried)
    assert f'<span class="failed">{failed.reason}: ' in tried._repr_html_()
    # A run that counts it as failed is believed: only a retry asks again.
    caption_shard(factory, "colours", "shard-00000", ColourBackend)
    assert try_captioner(factory, "colours", 3, load=nothing).images[1].reason == failed.reason


def test_an_image_without_the_raw_caption_that_the_prompt_quotes_is_not_asked_about(load, write_source, make_factory):
    source = write_source(1, extra=[{"image": "more.png", "caption": ""}])
    picture(1).save(source / "images" / "more.png")
    captioners = {"colours": {"model": "demo:tiny-llava", "prompt": "Say more than {raw_caption} of <image>:"}}
    tried = try_captioner(make_factory(source, captioners=captioners), "colours", load=load)
    assert (load.images, tried.generated) == (1, 1)
    assert tried.images[1].reason == "no_raw_caption"


def test_what_captions_and_names_say_is_text_on_the_page(load, tmp_path):
    factory = captioned(write_factory(tmp_path))
    tried = try_captioner(factory, "colours", 2, load=load)
    page = tried.page.read_text(encoding="utf-8")
    for html in (page, tried._repr_html_()):
        assert "<script" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "default-src 'none'" in page
    assert "src=" in page and "http" not in page.replace("http-equiv", "")
    assert "<script" not in tried._repr_markdown_()
    assert "\x1b" not in repr(tried)


def test_a_try_in_a_bucket_is_there_for_another_machine(load, write_source, make_factory, monkeypatch, tmp_path):
    monkeypatch.setenv("CAPLOOM_MIRROR", str(tmp_path / "mirror"))
    source, store = write_source(4), f"memory://{uuid.uuid4().hex}"
    first = try_captioner(make_factory(source, store=store), "colours", 2, load=load)
    monkeypatch.setenv("CAPLOOM_MIRROR", str(tmp_path / "another mirror"))
    factory = make_factory(source, store=store)
    assert try_captioner(factory, "colours", 2, load=nothing).images == first.images
    made = caption_shard(factory, "colours", "shard-00000", ColourBackend)
    assert made.manifest.summary["generated"] == 2


def test_a_mistake_is_said_before_anything_is_cut(write_source, make_factory):
    factory = make_factory(write_source(1))
    with pytest.raises(ConfigError, match=r'There is no captioner "colour"; .*did you mean "colours"'):
        try_captioner(factory, "colour", load=nothing)
    with pytest.raises(ConfigError, match="images is 0"):
        try_captioner(factory, "colours", 0, load=nothing)
    assert shard_names(factory) == []


def test_a_shard_without_images_is_said(write_source, make_factory):
    factory = make_factory(write_source(0, extra=[{"image": "none.png", "caption": "x"}]))
    with pytest.raises(CaploomError, match="shard-00000 has no image that can be captioned"):
        try_captioner(factory, "colours", load=nothing)
