"""What trains the demo's captioners: it still builds what ships, and writes folders that load."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

import caploom.demo
from demo_captioners.architectures import FAMILIES, build
from demo_captioners.train import train

SHIPPED = Path(caploom.demo.__file__).parent / "captioners"


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_it_still_builds_what_ships(name):
    built, processor = build(name)
    shipped = AutoModelForImageTextToText.from_pretrained(SHIPPED / name)
    assert {key: value.shape for key, value in built.state_dict().items()} == {
        key: value.shape for key, value in shipped.state_dict().items()
    }
    shipped_processor = AutoProcessor.from_pretrained(SHIPPED / name)
    assert processor.tokenizer.get_vocab() == shipped_processor.tokenizer.get_vocab()
    assert FAMILIES[name].prompt == json.loads((SHIPPED / name / "training.json").read_text())["prompt"]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_one_training_step_runs_and_writes_a_folder_that_loads(name, tmp_path):
    training = train(name, steps=1, batch=2, seed=0, out=tmp_path, looking_steps=1, scenes=4, unseen_scenes=2)
    assert json.loads((tmp_path / "training.json").read_text())["steps"] == 1
    assert training.whole_text["n"] == 2
    AutoModelForImageTextToText.from_pretrained(tmp_path)
