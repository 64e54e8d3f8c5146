"""The contract of every family: a batch says what each image says alone, and a bad image fails alone.

Tiny models with random weights, built by `tiny_models`, saved as folders and loaded by the code that loads a 7B model.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from PIL import Image
from small_factory import captioner_of
from tiny_models import MODELS, save

from caploom.captioning.backend import ImageRef
from caploom.captioning.families import Blip2, Family, InstructBlip
from caploom.captioning.presets import presets
from caploom.captioning.transformers_backend import TransformersBackend
from caploom.errors import CaptionerError
from caploom.storage.records import image_identity

SIZES = [(32, 32), (64, 48), (40, 90), (100, 60)]
FAULTS = {"cut.png": "undecodable_image", "empty.png": "empty_image"}
FAMILY_OF_PRESET = {
    "llava-1.5": "llava",
    "minigpt-4": "minigpt-4",
    "otter": "idefics",
    "smolvlm-256m": "idefics3",
    "smolvlm-500m": "idefics3",
    "smolvlm-2.2b": "smolvlm",
    "qwen2.5-vl-3b": "qwen2_5_vl",
    "qwen2.5-vl-7b": "qwen2_5_vl",
    "qwen3-vl": "qwen3_vl",
    "internvl3": "internvl",
    "idefics3": "idefics3",
    "paligemma2": "paligemma2",
    "blip2": "blip-2-opt",
    "instructblip": "instructblip",
    "florence-2": "florence2",
    "gemma3": "gemma3",
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """The folder of a family's tiny model, made once."""
    return cache(lambda name: save(name, tmp_path_factory.mktemp("models") / name))


@pytest.fixture(scope="module")
def quoting(folder_of):
    """A family's model whose prompt quotes the raw caption, loaded once for all that leave it as it is."""
    return cache(lambda name: load(folder_of(name), prompt=MODELS[name].asking("It is {raw_caption}.")))


@pytest.fixture(scope="module")
def refs(tmp_path_factory):
    """Pictures of several sizes whose raw captions are of several lengths, and two files that hold none."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    files = {}
    for number, size in enumerate(SIZES):
        files[f"{number}.png"] = size
        Image.fromarray(random.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize(size).save(folder / f"{number}.png")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "empty.png").touch()
    names = list(files)
    names[2:2], names[5:5] = ["cut.png"], ["empty.png"]
    made = []
    for number, name in enumerate(names):
        width, height = files.get(name, (0, 0))
        identity = image_identity((folder / name).read_bytes())
        made.append(ImageRef(identity, str(folder / name), name, "a red cat " * (number % 4), width, height))
    return made


@pytest.fixture(scope="module")
def alike(refs):
    """The same pictures without raw captions: prompts of one length, which need no padding."""
    return [replace(ref, raw_caption="") for ref in refs]


def load(folder, family=None, **settings):
    settings = {"model": str(folder), "decoding": {"max_new_tokens": 6}, "batch_size": len(SIZES), **settings}
    return TransformersBackend(captioner_of(settings), family=family)


def say(backend, refs):
    """What a captioner makes of images: a generation, or the reason of a failure."""
    said = {}
    for chunk in backend.caption(refs):
        said |= {each.ref.image: each.generation for each in chunk.captioned}
        said |= {each.ref.image: each.reason for each in chunk.failed}
    assert len(said) == len(refs)
    return said


def texts(said):
    return [each.text for each in said.values() if not isinstance(each, str)]


def tokens(backend, ref, size=(64, 64)):
    """The prompt of one image as tokens."""
    return backend.prepare([Image.new("RGB", size)], [ref]).inputs["input_ids"][0].tolist()


def assert_batch_equals_single(backend, refs):
    batched, single = say(backend, refs), {}
    for ref in refs:
        single |= say(backend, [ref])
    assert batched == single
    assert {name: said for name, said in batched.items() if name in FAULTS} == FAULTS
    # Else nothing would be shown: a model that is blind says the same of everything.
    assert len(set(texts(batched))) >= len(SIZES) - 2


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_says_what_each_image_says_alone(name, quoting, alike):
    assert_batch_equals_single(quoting(name), alike)


@pytest.mark.parametrize("name", MODELS)
def test_so_it_does_with_prompts_of_different_lengths_and_the_canary_agrees(name, quoting, refs):
    assert_batch_equals_single(quoting(name), refs)
    rows = quoting(name).canary(refs)
    assert len(rows) == len(SIZES)
    assert [row for row in rows if not row.equal] == []


@pytest.mark.parametrize("name", ["llava", "idefics", "instructblip", "florence2", "minigpt-4"])
def test_so_it_does_when_it_draws(name, folder_of, refs):
    decoding = {"max_new_tokens": 6, "sample": True, "temperature": 0.7, "top_p": 0.9}
    prompt = MODELS[name].asking("It is {raw_caption}.")
    assert_batch_equals_single(load(folder_of(name), prompt=prompt, decoding=decoding), refs)


@pytest.mark.parametrize("preset", FAMILY_OF_PRESET)
def test_every_preset_s_prompt_and_options_work_with_its_family(preset, folder_of, refs):
    used = ("prompt", "decoding", "chat_template", "processor")
    settings = {key: value for key, value in presets()[preset].items() if key in used}
    settings["decoding"] = {**settings["decoding"], "max_new_tokens": 6}
    assert_batch_equals_single(load(folder_of(FAMILY_OF_PRESET[preset]), **settings), refs)


def test_every_preset_of_this_process_is_tested_here():
    here = {name for name, preset in presets().items() if preset.get("backend", "transformers") == "transformers"}
    demo = {name for name in here if name.startswith("demo:")}
    # Qwen-VL's own code has its own tests, and so have the captioners that ship in the package.
    assert here - demo == {*FAMILY_OF_PRESET, "qwen-vl-remote-code"}


def padded_left(family):
    """The family with what a decoder alone wants."""

    class PaddedLeft(family):
        def __init__(self, model, processor):
            super().__init__(model, processor)
            processor.tokenizer.padding_side = "left"

    return PaddedLeft


@pytest.mark.parametrize(
    ("name", "naive"),
    [
        ("instructblip", Family),
        ("instructblip-t5", padded_left(InstructBlip)),
        ("blip-2-t5", padded_left(Blip2)),
        ("florence2", padded_left(Family)),
    ],
)
def test_the_canary_catches_naive_left_padding(name, naive, folder_of, refs, alike):
    backend = load(folder_of(name), naive, prompt=MODELS[name].asking("It is {raw_caption}."))
    assert any(not row.equal for row in backend.canary(refs))
    assert all(row.equal for row in backend.canary(alike))


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_loaded_in_bfloat16(name, folder_of, refs):
    backend = load(folder_of(name), prompt=MODELS[name].asking("What is it?"), dtype="bfloat16")
    assert backend.facts["dtype"] == "bfloat16"
    assert len(texts(say(backend, refs))) >= len(SIZES) - 2


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("qwen2_vl", {"size": {"shortest_edge": 256, "longest_edge": 32 * 32}}),
        ("qwen2_5_vl", {"size": {"shortest_edge": 256, "longest_edge": 32 * 32}}),
        ("qwen2_5_vl", {"max_pixels": 32 * 32}),
        ("qwen3_vl", {"size": {"shortest_edge": 256, "longest_edge": 32 * 32}}),
        ("idefics3", {"do_image_splitting": False}),
        ("smolvlm", {"do_image_splitting": False}),
        ("internvl", {"crop_to_patches": False}),
    ],
)
def test_the_processor_heeds_its_options(name, option, folder_of, quoting, refs):
    smaller = load(folder_of(name), prompt=MODELS[name].asking("It is {raw_caption}."), processor=option)
    assert len(tokens(smaller, refs[0], (64, 128))) < len(tokens(quoting(name), refs[0], (64, 128)))


def test_an_option_that_the_processor_does_not_have_is_said(folder_of):
    with pytest.raises(CaptionerError, match=r'its processor has no option "max_pixel" \(did you mean "max_pixels"'):
        load(folder_of("qwen2_5_vl"), prompt=MODELS["qwen2_5_vl"].asking(""), processor={"max_pixel": 3})


def test_minigpt_4_has_its_image_where_the_prompt_says(folder_of, refs):
    backend = load(folder_of("minigpt-4"), prompt=presets()["minigpt-4"]["prompt"])
    tokenizer = backend._family.processor.tokenizer
    whole = tokenizer.decode(tokens(backend, refs[0]))
    queries = "<image>" * backend._model.config.num_query_tokens
    assert whole == f"<s>###Human: <Img>{queries}</Img> Describe in English: ###Assistant: "


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("<image> User: Say.", "<s>IMAGEUser: Say."),
        ("User: Say.", "<s>IMAGEUser: Say."),
        ("User: <image> Say.", "<s>User:IMAGESay."),
    ],
)
def test_idefics_has_its_image_where_the_prompt_says_or_first(prompt, expected, folder_of, refs):
    backend = load(folder_of("idefics"), prompt=prompt)
    whole = backend._family.processor.tokenizer.decode(tokens(backend, refs[0]))
    image = "<fake_token_around_image><image><fake_token_around_image>"
    assert whole == expected.replace("IMAGE", image)


def test_idefics_does_not_fetch_what_a_raw_caption_points_at(folder_of, refs):
    pointing = [replace(ref, raw_caption="http://127.0.0.1:1/a.png") if ref.image == "3.png" else ref for ref in refs]
    (chunk,) = load(folder_of("idefics"), prompt="{raw_caption}", batch_size=len(refs)).caption(pointing)
    failed = {each.ref.image: each.detail for each in chunk.failed if each.ref.image not in FAULTS}
    assert list(failed) == ["3.png"]
    assert "the prompt is nothing but a web address (http://127.0.0.1:1/a.png)" in failed["3.png"]


@pytest.mark.parametrize("name", MODELS)
def test_a_raw_prompt_begins_and_ends_at_most_once(name, quoting, refs):
    """Some processors write these tokens, others leave it to the tokenizer."""
    whole, tokenizer = tokens(quoting(name), refs[0]), quoting(name)._family.processor.tokenizer
    assert whole.count(tokenizer.bos_token_id) <= 1
    assert whole.count(tokenizer.eos_token_id) <= 1


@pytest.mark.parametrize("name", ["gemma3", "idefics3", "smolvlm"])
def test_a_chat_template_begins_a_text_once(name, folder_of, refs):
    backend = load(folder_of(name), prompt="What is it?", chat_template=True)
    whole = tokens(backend, refs[0])
    assert whole.count(backend._family.processor.tokenizer.bos_token_id) == 1
    assert whole[0] == backend._family.processor.tokenizer.bos_token_id


def test_smolvlm_without_num2words_names_the_extra(folder_of):
    script = """
import sys
sys.modules["num2words"] = None  # as where it is not installed
from caploom.captioning.settings import TransformersCaptioner
from caploom.captioning.transformers_backend import TransformersBackend
TransformersBackend(TransformersCaptioner(model=sys.argv[1], prompt="<image>"), device="cpu")
"""
    command = [sys.executable, "-c", script, str(folder_of("smolvlm"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("caploom.errors.CaptionerError: ")
    assert last.endswith("SmolVLM's processor needs num2words; install it with pip install 'caploom[smolvlm]'.")


def test_blip_begins_with_its_own_token_whatever_the_padding(quoting, refs):
    backend = quoting("blip")
    inputs = backend.prepare([Image.new("RGB", (32, 32))] * 4, refs[:4]).inputs
    begins = backend._model.config.text_config.bos_token_id
    for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        assert row[mask.bool()][0] == begins


@pytest.mark.parametrize("name", ["blip-2-opt", "instructblip"])
def test_weights_that_name_no_image_token_are_refused_and_not_captioned_blindly(name, folder_of, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(folder_of(name), folder)
    config = json.loads((folder / "config.json").read_text())
    config["image_token_index"] = config["image_token_id"] = None
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CaptionerError, match="names no image token"):
        load(folder, prompt="")


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_weights_are_quantized(quantization, folder_of, quoting, refs):
    settings = {"decoding": {"max_new_tokens": 3}, "quantization": quantization}
    small = load(folder_of("llava"), prompt=MODELS["llava"].asking("What is it?"), **settings)
    assert small._model.get_memory_footprint() < quoting("llava")._model.get_memory_footprint()
    said = say(small, refs)
    assert {name: reason for name, reason in said.items() if name in FAULTS} == FAULTS
    assert len(set(texts(said))) >= len(SIZES) - 2
    assert [row for row in small.canary(refs) if not row.equal] == []


@pytest.mark.parametrize("name", ["llava", "blip", "minigpt-4", "instructblip-t5", "florence2"])
def test_a_text_ends_before_a_stop_string(name, folder_of, quoting, refs):
    """Each of these generates in another part of the model, which must be told to stop too."""
    prompt = MODELS[name].asking("It is {raw_caption}.")
    whole = say(quoting(name), refs)
    richest = max(texts(whole), key=lambda text: len(set(text)))
    stop = next(letter for letter in richest if letter != richest[0])
    cut = say(load(folder_of(name), prompt=prompt, decoding={"max_new_tokens": 6, "stop_strings": [stop]}), refs)
    for image, said in whole.items():
        if isinstance(said, str):
            assert cut[image] == said
        elif stop in said.text:
            before = said.text.partition(stop)[0].strip()
            assert cut[image] == "empty_caption" if not before else cut[image].text == before
            assert not before or cut[image].finish_reason == "stop"
        else:
            assert cut[image] == said
