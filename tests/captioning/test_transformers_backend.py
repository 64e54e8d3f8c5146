"""The four shipped captioners, loaded by the code that loads a 7B model."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image
from small_factory import captioner_of
from transformers import AutoModelForImageTextToText

from caploom.captioning.backend import ImageRef
from caploom.captioning.identity import model_location
from caploom.captioning.transformers_backend import TransformersBackend
from caploom.config.factory_config import DEMO_CONFIG
from caploom.demo.scenes import compose, render
from caploom.demo.truth import score
from caploom.errors import CaptionerError
from caploom.shearing.rules import first_sentence
from caploom.shearing.settings import ShearStep
from caploom.storage.records import image_identity

CAPTIONERS = yaml.safe_load(DEMO_CONFIG.read_text())["captioners"]
GREEDY = {"max_new_tokens": 40}


def settings_of(name, **changes):
    return captioner_of({**CAPTIONERS[name], **changes})


def load(settings):
    return TransformersBackend(settings)


def say(backend, images, image_ids):
    """What a captioner says of images in one batch."""
    return backend.generate(backend.prepare(images, [ImageRef(image_id, "", "") for image_id in image_ids]))


@pytest.fixture(scope="module")
def scenes():
    images = [render(compose(0, "evaluation", index)) for index in range(4)]
    return images, [f"image-{index}" for index in range(4)]


@pytest.fixture(scope="module")
def shared():
    """A captioner of the given settings, loaded once for all tests that leave it as it is."""
    made = {}

    def of(name, **changes):
        key = json.dumps([name, changes])
        if key not in made:
            made[key] = load(settings_of(name, **changes))
        return made[key]

    return of


@pytest.mark.parametrize("name", list(CAPTIONERS))
@pytest.mark.parametrize("sample", [False, True])
def test_a_batch_says_what_each_image_says_alone(name, sample, scenes, shared):
    images, image_ids = scenes
    drawing = {"max_new_tokens": 40, "sample": True, "temperature": 0.7, "top_p": 0.9}
    backend = shared(name, decoding=drawing if sample else GREEDY)
    batched = say(backend, images, image_ids)
    single = [say(backend, [image], [image_id])[0] for image, image_id in zip(images, image_ids, strict=True)]
    assert batched == single
    assert len({generation.text for generation in batched}) > 1
    assert all(generation.text[0].isupper() and "  " not in generation.text for generation in batched)


@pytest.mark.parametrize("name", list(CAPTIONERS))
def test_each_captioner_sees_what_is_there(name):
    """Far above what it would name by chance, and often right: prompt and image reach the model as in its training."""
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

    def texts(backend, ids):
        return [generation.text for generation in say(backend, images, ids)]

    first, again, other = (load(settings_of("tiny-llava", decoding=decoding, seed=seed)) for seed in (0, 0, 1))
    said = texts(first, image_ids)
    assert texts(again, image_ids) == said
    assert texts(other, image_ids) != said
    assert texts(first, [f"other-{image_id}" for image_id in image_ids]) != said


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


def results_of(backend, refs):
    captioned, failed = {}, {}
    for chunk in backend.caption(refs):
        captioned |= {item.ref.image: item.generation for item in chunk.captioned}
        failed |= {item.ref.image: item.reason for item in chunk.failed}
    return captioned, failed


def written(folder, images):
    """Images as files, by the name that says what each is."""
    refs = []
    for name, image in images.items():
        image.save(folder / name)
        refs.append(ImageRef(image_identity((folder / name).read_bytes()), str(folder / name), name))
    return refs


def test_every_kind_of_image_is_captioned_and_the_unreadable_fail_alone(scenes, tmp_path):
    scene = scenes[0][0]
    sixteen = Image.fromarray(np.asarray(scene.convert("L")).astype(np.uint16) * 256)
    kinds = {
        "rgb.png": scene,
        "grey.png": scene.convert("L"),
        "two.png": scene.convert("1"),
        "palette.png": scene.convert("P"),
        "alpha.png": scene.convert("RGBA"),
        "grey-alpha.png": scene.convert("LA"),
        "sixteen.png": sixteen,
        "cmyk.jpg": scene.convert("CMYK"),
        "animated.gif": scene.convert("P"),
        "still.webp": scene,
        "thin.png": scene.resize((300, 1)),
    }
    refs = written(tmp_path, kinds)
    for name, data in {
        "empty.png": b"",
        "cut.png": (tmp_path / "rgb.png").read_bytes()[:200],
        "text.png": b"x",
    }.items():
        (tmp_path / name).write_bytes(data)
        refs.insert(4, ImageRef(image_identity(data), str(tmp_path / name), name))
    backend = load(settings_of("tiny-llava", batch_size=8, decoding={"max_new_tokens": 12}))
    captioned, failed = results_of(backend, refs)
    assert set(captioned) == set(kinds)
    assert failed == {"empty.png": "empty_image", "cut.png": "undecodable_image", "text.png": "undecodable_image"}
    assert captioned["rgb.png"] == captioned["alpha.png"] == say(backend, [scene], ["x"])[0]


@pytest.fixture
def changed_model(tmp_path):
    """A copy of tiny-llava with something changed, loaded like any folder."""

    def change(edit, **settings):
        folder = tmp_path / "changed"
        location = model_location(settings_of("tiny-llava"))
        shutil.copytree(location, folder)
        model = AutoModelForImageTextToText.from_pretrained(location)
        edit(model)
        model.save_pretrained(folder)
        return load(settings_of("tiny-llava", model=str(folder), **settings))

    return change


def test_a_model_that_says_nothing_makes_failures_and_no_empty_captions(changed_model, scenes, tmp_path):
    def end_at_once(model):
        model.generation_config.eos_token_id = list(range(model.config.text_config.vocab_size))

    backend = changed_model(end_at_once)
    refs = written(tmp_path, {"a.png": scenes[0][0], "b.png": scenes[0][1]})
    assert results_of(backend, refs) == ({}, {"a.png": "empty_caption", "b.png": "empty_caption"})


def test_a_model_that_never_stops_is_cut_at_the_cap(changed_model, scenes):
    def never_end(model):
        model.generation_config.eos_token_id = model.config.text_config.vocab_size + 7

    backend = changed_model(never_end, decoding={"max_new_tokens": 60})
    for generation in say(backend, *scenes):
        assert (generation.tokens, generation.finish_reason) == (60, "length")


STOP_AT_SENTENCE = [[ShearStep.model_validate("first_sentence")]]


@pytest.mark.parametrize("name", list(CAPTIONERS))
def test_text_stopped_by_the_shear_is_sheared_as_the_whole_text_is(name, scenes, shared):
    images, image_ids = scenes
    whole = say(shared(name, decoding=GREEDY), images, image_ids)
    stopped = say(load(settings_of(name, decoding=GREEDY).stopping_at(STOP_AT_SENTENCE)), images, image_ids)
    for long, short in zip(whole, stopped, strict=True):
        assert long.text.startswith(short.text)
        assert long.text[slice(*first_sentence(long.text))] == short.text[slice(*first_sentence(short.text))]
    assert sum(short.tokens for short in stopped) < 0.7 * sum(long.tokens for long in whole)
    assert {short.finish_reason for short in stopped} >= {"shear"}


def test_stopping_by_the_shear_is_the_same_alone_and_in_a_batch(scenes):
    images, image_ids = scenes
    decoding = {"max_new_tokens": 40, "sample": True, "temperature": 0.9}
    backend = load(settings_of("tiny-llava", decoding=decoding).stopping_at(STOP_AT_SENTENCE))
    single = [say(backend, [image], [image_id])[0] for image, image_id in zip(images, image_ids, strict=True)]
    assert say(backend, images, image_ids) == single


def test_a_text_ends_before_its_stop_string(scenes, shared):
    images, image_ids = scenes
    plain = say(shared("tiny-llava", decoding=GREEDY), images, image_ids)
    stop = {"max_new_tokens": 40, "stop_strings": [" and"]}
    for whole, cut in zip(plain, say(load(settings_of("tiny-llava", decoding=stop)), images, image_ids), strict=True):
        assert cut.text == whole.text.split(" and")[0].strip()
        if " and" in whole.text:
            assert (cut.finish_reason, cut.tokens < whole.tokens) == ("stop", True)


def test_the_prompt_can_quote_the_raw_caption(tmp_path, scenes):
    """Prompts of several lengths in one batch: each row must be what it is alone."""
    words = ["a dog", "a photo of a dog and of a cat in the garden", "", "two men"]
    prompt, decoding = "{raw_caption} Describe <image> in English:", {"max_new_tokens": 16}
    backend = load(settings_of("tiny-llava", prompt=prompt, decoding=decoding))
    refs = [
        replace(ref, raw_caption=raw)
        for ref, raw in zip(
            written(tmp_path, {f"{i}.png": image for i, image in enumerate(scenes[0])}), words, strict=True
        )
    ]
    batched, _ = results_of(backend, refs)
    single = {ref.image: results_of(backend, [ref])[0][ref.image] for ref in refs}
    assert batched == single
    assert all(row.equal for row in backend.canary(refs))
    plain, _ = results_of(load(settings_of("tiny-llava", decoding=decoding)), refs)
    assert batched != plain


def test_a_model_spread_by_a_device_map_says_the_same(scenes, shared):
    spread = load(settings_of("tiny-llava", decoding=GREEDY, device_map="auto"))
    assert say(spread, *scenes) == say(shared("tiny-llava", decoding=GREEDY), *scenes)


def test_what_the_manifest_records_of_a_captioner(scenes, tmp_path):
    backend = load(settings_of("tiny-llava", dtype="bfloat16", batch_size=7))
    assert len(results_of(backend, written(tmp_path, {"a.png": scenes[0][0]}))[0]) == 1
    assert backend.facts == {"commit": None, "dtype": "bfloat16", "batch_size": 7}
