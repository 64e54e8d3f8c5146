"""The four shipped captioners, loaded by the code that loads a 7B model."""

import shutil

import pytest
import yaml

from small_factory import captioner_of

from caploom.captioning.backend import ImageRef
from caploom.captioning.identity import model_location
from caploom.captioning.transformers_backend import TransformersBackend
from caploom.config import DEMO_CONFIG
from caploom.demo.scenes import compose, render
from caploom.demo.truth import score
from caploom.errors import CaptionerError
from caploom.shearing.rules import first_sentence

CAPTIONERS = yaml.safe_load(DEMO_CONFIG.read_text())["captioners"]


def settings_of(name, **changes):
    return captioner_of({**CAPTIONERS[name], **changes})


def load(settings):
    return TransformersBackend(settings)


def say(backend, images, image_ids):
    """What a captioner says of images in one batch."""
    return backend.generate(backend.prepare(images, [ImageRef(image_id, "", "") for image_id in image_ids]))


@pytest.fixture(scope="module")
def scenes():
    images = [render(compose(0, "evaluation", index)) for index in range(6)]
    return images, [f"image-{index}" for index in range(6)]


@pytest.mark.parametrize("name", list(CAPTIONERS))
@pytest.mark.parametrize("sample", [False, True])
def test_a_batch_says_what_each_image_says_alone(name, sample, scenes):
    images, image_ids = scenes
    decoding = {"max_new_tokens": 40, "sample": sample, **({"temperature": 0.7, "top_p": 0.9} if sample else {})}
    backend = load(settings_of(name, decoding=decoding))
    batched = say(backend, images, image_ids)
    single = [say(backend, [image], [image_id])[0] for image, image_id in zip(images, image_ids, strict=True)]
    assert batched == single
    assert len({generation.text for generation in batched}) > 1
    assert all(generation.text[0].isupper() and "  " not in generation.text for generation in batched)


@pytest.mark.parametrize("name", list(CAPTIONERS))
def test_each_captioner_sees_what_is_there(name):
    """Far above what it would name by chance, and mostly right: prompt and image reach the model as in its training."""
    scenes = [compose(0, "evaluation", index) for index in range(48)]
    generations = say(load(settings_of(name)), [render(scene) for scene in scenes], [str(s) for s in scenes])
    first = [generation.text[slice(*first_sentence(generation.text))] for generation in generations]
    truth = {str(index): [placement.thing for placement in scene.placements] for index, scene in enumerate(scenes)}
    scored = score({str(index): text for index, text in enumerate(first)}, truth)
    assert scored.named_share > 0.5
    assert scored.right_share > 0.8


def test_sampling_follows_the_seed_and_the_image(scenes):
    images, image_ids = scenes
    decoding = {"max_new_tokens": 40, "sample": True, "temperature": 1.5}

    def texts(seed, ids):
        backend = load(settings_of("tiny-llava", decoding=decoding, seed=seed))
        return [generation.text for generation in say(backend, images, ids)]

    assert texts(0, image_ids) == texts(0, image_ids)
    assert texts(0, image_ids) != texts(1, image_ids)
    assert texts(0, image_ids) != texts(0, [f"other-{image_id}" for image_id in image_ids])


def test_the_token_cap_ends_a_text_and_is_said(scenes):
    images, image_ids = scenes
    backend = load(settings_of("tiny-llava", decoding={"max_new_tokens": 3}))
    for generation in say(backend, images, image_ids):
        assert (generation.tokens, generation.finish_reason) == (3, "length")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (("processor_config.json", "preprocessor_config.json"), "has no image processor"),
        (("model.safetensors",), "has no weights in safetensors"),
        (("config.json",), "has no configuration"),
    ],
)
def test_a_model_folder_that_lacks_something_says_what(tmp_path, missing, words):
    folder = tmp_path / "model"
    shutil.copytree(model_location(settings_of("tiny-llava")), folder)
    for name in missing:
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(CaptionerError) as error:
        load(settings_of("tiny-llava", model=str(folder)))
    assert str(folder) in str(error.value)
    assert words in str(error.value)


def test_a_model_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CaptionerError, match="there is no such model folder"):
        load(settings_of("tiny-llava", model=str(tmp_path / "nothing")))


def test_a_damaged_weights_file_is_a_sentence(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_location(settings_of("tiny-llava")), folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CaptionerError, match="the model does not load"):
        load(settings_of("tiny-llava", model=str(folder)))


def test_a_chat_template_that_the_model_does_not_have_is_said():
    with pytest.raises(CaptionerError, match="no chat template"):
        load(settings_of("tiny-llava", chat_template=True))
