"""The presets: each is a whole captioner, the paper's four as released; and how a preset and a user's keys merge."""

import re

import pytest
from small_factory import captioner_of, settings_of

from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.presets import expand_preset, presets
from caploom.captioning.settings import DEMO_PREFIX
from caploom.config.factory_config import DEMO_CONFIG, load_config
from caploom.errors import ConfigError

# What only the user can say.
GIVEN = {
    "minigpt-4": {"model": "./minigpt-4"},
    "otter-original": {"url": "http://127.0.0.1:8000/v1"},
    "qwen-vl": {"url": "http://127.0.0.1:8000/v1"},
}
PAPER_CONFIG = DEMO_CONFIG.with_name("paper.yaml")


def of_preset(name, **own):
    return captioner_of({"preset": name, **GIVEN.get(name, {}), **own})


@pytest.fixture
def refused(write_source, write_config):
    """The message that a factory with this captioner is refused with."""

    def message(captioner):
        with pytest.raises(ConfigError) as error:
            load_config(write_config(settings_of(write_source(1), captioners={"mine": captioner})))
        return str(error.value)

    return message


def test_what_the_issue_asks_for_is_there():
    assert set(presets()) == {
        *("llava-1.5", "minigpt-4", "otter", "otter-original", "qwen-vl", "qwen-vl-remote-code"),
        *("smolvlm-256m", "smolvlm-500m", "smolvlm-2.2b", "qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen3-vl", "internvl3"),
        *("idefics3", "paligemma2", "blip2", "instructblip", "florence-2", "gemma3"),
        *("demo:tiny-llava", "demo:tiny-qwen-vl", "demo:tiny-minigpt-4", "demo:tiny-otter"),
    }


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_a_whole_captioner_that_says_what_it_costs(name):
    preset = presets()[name]
    settings = of_preset(name)
    assert preset["about"].endswith(".")
    assert {"prompt", "decoding"} <= set(preset)
    assert preset["decoding"]["max_new_tokens"] <= 100
    assert "model" in {**preset, **GIVEN.get(name, {})}
    if settings.backend == "transformers":
        assert {"dtype", "memory_gb", "batch_size"} <= set(preset)
        assert settings.trust_remote_code is False
        assert ("revision" in preset) == ("model" in preset and not preset["model"].startswith(DEMO_PREFIX))
        assert re.fullmatch("[0-9a-f]{40}|main", preset.get("revision", "main"))


@pytest.mark.parametrize("name", ["minigpt-4", "otter-original", "qwen-vl"])
def test_what_only_the_user_can_say_is_asked_for(name, refused):
    (key,) = GIVEN[name]
    assert f"captioners.mine.{key}: this key is required" in refused({"preset": name})


def test_llava_is_as_released():
    settings = of_preset("llava-1.5")
    assert settings.prompt == "Describe <image> in English:"
    assert settings.chat_template is False
    assert settings.model == "llava-hf/llava-1.5-7b-hf"
    assert settings.batch_size == 48
    decoding = settings.decoding
    assert (decoding.max_new_tokens, decoding.sample, decoding.temperature, decoding.top_p) == (30, True, 0.2, 1.0)
    assert decoding.stop_at == "shear"


def test_minigpt_4_is_as_released():
    settings = of_preset("minigpt-4")
    assert settings.prompt == "###Human: <Img><image></Img> Describe in English: ###Assistant: "
    assert settings.chat_template is False
    assert settings.batch_size == 96
    decoding = settings.decoding
    assert (decoding.max_new_tokens, decoding.sample, decoding.temperature, decoding.top_p) == (30, True, 1.0, 0.9)
    assert decoding.stop_strings == ["###"]
    assert decoding.stop_at == "shear"


def test_otter_is_as_released():
    settings = of_preset("otter")
    assert settings.prompt == "<image> User: Describe in English: GPT: <answer>"
    assert settings.chat_template is False
    assert settings.batch_size == 48
    decoding = settings.decoding
    assert (decoding.max_new_tokens, decoding.sample, decoding.no_repeat_ngram_size) == (30, False, 3)
    assert decoding.stop_at == "shear"


def test_otter_s_own_weights_are_asked_the_same():
    settings = of_preset("otter-original")
    assert settings.backend == "openai"
    assert settings.prompt == "Describe in English:"
    assert (settings.decoding.max_new_tokens, settings.decoding.sample) == (30, False)
    assert settings.decoding.stop_at == "shear"
    assert settings.extra_body == {"no_repeat_ngram_size": 3}


def test_qwen_vl_is_as_released_on_a_server():
    settings = of_preset("qwen-vl")
    assert settings.backend == "openai"
    assert (settings.model, settings.prompt) == ("Qwen/Qwen-VL", "Express emotional or artistic response:")
    assert (settings.decoding.max_new_tokens, settings.decoding.sample) == (30, False)
    assert settings.decoding.stop_at == "shear"
    assert settings.extra_body == {"min_tokens": 8, "length_penalty": 0}
    assert settings.concurrency == 64


def test_qwen_vl_is_as_released_in_this_process_and_its_code_runs_only_when_asked_for():
    settings = of_preset("qwen-vl-remote-code")
    assert settings.trust_remote_code is False
    assert settings.prompt == "<img>{path}</img>Express emotional or artistic response:"
    assert settings.batch_size == 64
    decoding = settings.decoding
    assert (decoding.max_new_tokens, decoding.sample, decoding.min_new_tokens) == (30, False, 8)
    assert (decoding.length_penalty, decoding.stop_at) == (0, "shear")
    opted_in = of_preset("qwen-vl-remote-code", trust_remote_code=True)
    assert re.fullmatch("[0-9a-f]{40}", opted_in.revision)


def test_a_user_s_keys_go_before_the_preset_s_and_mappings_are_merged():
    settings = of_preset("llava-1.5", batch_size=7, decoding={"temperature": 0.5})
    assert settings.batch_size == 7
    assert settings.decoding.temperature == 0.5
    assert (settings.decoding.max_new_tokens, settings.decoding.sample) == (30, True)
    settings = of_preset("qwen-vl", extra_body={"min_tokens": None})
    assert settings.extra_body == {"min_tokens": None, "length_penalty": 0}


def test_expanding_changes_no_preset():
    before = repr(presets())
    expand_preset({"preset": "llava-1.5", "decoding": {"temperature": 0.5}})["decoding"]["top_p"] = 0.1
    assert repr(presets()) == before


def test_the_demo_s_presets_are_the_captioners_of_its_yaml():
    config = load_config(DEMO_CONFIG)
    assert [f"{DEMO_PREFIX}{name}" for name in config.captioners] == [name for name in presets() if ":" in name]
    for name, written in config.captioners.items():
        preset = of_preset(f"{DEMO_PREFIX}{name}")
        assert captioner_fingerprint(preset) == captioner_fingerprint(written)
        assert preset.batch_size == written.batch_size


def test_an_unknown_preset_names_the_nearest(refused):
    message = refused({"preset": "lava-1.5"})
    assert 'captioners.mine: There is no preset "lava-1.5"; known: llava-1.5, minigpt-4' in message
    assert 'did you mean "llava-1.5"' in message


def test_what_a_preset_cannot_mix_is_said_in_the_user_s_words(refused):
    assert "temperature and top_p need sampling" in refused({"preset": "llava-1.5", "decoding": {"sample": False}})


def fingerprint_in(write_source, write_config, stop_at, recipes):
    captioner = {"preset": "llava-1.5", "decoding": {"stop_at": stop_at}}
    settings = settings_of(write_source(1), captioners={"mine": captioner}, recipes=recipes)
    return captioner_fingerprint(load_config(write_config(settings)).captioners["mine"])


def test_stopping_at_the_shear_is_another_captioner_and_only_where_every_recipe_shears(write_source, write_config):
    sheared = {"captioners": "all", "shear": "first"}
    all_sheared = {"raw": {"captioners": []}, "a": sheared, "b": sheared}
    one_whole = {**all_sheared, "whole": {"captioners": "all"}}

    def of(stop_at, recipes):
        return fingerprint_in(write_source, write_config, stop_at, recipes)

    assert of("shear", all_sheared) != of("end", all_sheared)
    assert of("shear", one_whole) == of("end", one_whole) == of("end", all_sheared)


def test_the_paper_s_factory_has_its_four_captioners_alone_and_together():
    config = load_config(PAPER_CONFIG)
    assert list(config.captioners) == ["llava-1.5", "minigpt-4", "otter", "qwen-vl"]
    assert all(captioner.stops for captioner in config.captioners.values())
    arms = [recipe.captioners for recipe in config.expanded_recipes()]
    assert arms == [(), *((name,) for name in config.captioners), tuple(config.captioners)]
    assert [step.rule for step in config.shear_steps("first-sentence")] == ["first_sentence"]
