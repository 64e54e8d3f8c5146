"""A factory of which everything is really made, in seconds: two shards, two captioners, two shears, three recipes."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from small_factory import ColourBackend, colour_name, picture

from caploom.captioning.backend import Generation
from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.report.make import make_report
from caploom.stages.captions import caption_shard
from caploom.stages.checkpoint import train_recipe
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.retrieval_metrics import measure_recipe
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.sheared import shear_recipe
from caploom.stages.training_set import merge_training_set
from caploom.training.launch import train_here

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


class Telling(ColourBackend):
    """Begins with the number of the words of its prompt, so that another prompt is another caption."""

    def __init__(self, prompt: str) -> None:
        super().__init__()
        self.prompt = prompt

    def look(self, image: Any) -> Generation:
        seen = super().look(image)
        return Generation(f"{len(self.prompt.split())} {seen.text}", seen.tokens, "stop")


def write_settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Pictures, captions and a model's architecture in a folder, and the YAML over them as a mapping."""
    (folder / "vit.json").write_text(json.dumps(VIT))
    for name, numbers in (("pairs", range(12)), ("more-pairs", range(4, 14)), ("held-out", range(20, 30))):
        (folder / name).mkdir()
        rows = [
            {"image": f"{number}.png", "caption": f"the {colour_name(number)} photo {number}"} for number in numbers
        ]
        for number in numbers:
            picture(number).save(folder / name / f"{number}.png")
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return settings_in(folder) | changes


def settings_in(folder: Path) -> dict[str, Any]:
    """The YAML over what was written into a folder."""
    captioner = {"model": "demo:tiny-llava", "prompt": "Describe <image>:", "batch_size": 4}
    return {
        "name": "whole",
        "store": str(folder / "store"),
        "pairs": reader(folder, "pairs"),
        "shard_size": 8,
        "captioners": {"first": captioner, "second": {**captioner, "prompt": "What is in <image>, in short?"}},
        "shears": {"sentence": ["first_sentence"], "words": [{"max_words": 3}]},
        "trainers": {"small": {"model": str(folder / "vit.json"), "steps": 1, "batch_size": 4, "device": "cpu"}},
        "duplicates": {"leakage": "off"},  # its few pictures are much alike, and some are evaluated on
        "evaluation_sets": {"held-out": reader(folder, "held-out")},
        "recipes": {
            "raw-only": {"captioners": []},
            "one": {"captioners": ["first"], "shear": "sentence"},
            "both": {"captioners": "all", "shear": "words"},
        },
    }


def reader(folder: Path, name: str) -> dict[str, str]:
    return {"reader": "image_captions", "root": str(folder / name), "captions": str(folder / f"{name}.json")}


def factory_of(settings: dict[str, Any]) -> Factory:
    return Factory.from_config(parse_config(copy.deepcopy(settings), base=Path("/"), source="test"))


def edited(settings: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    """A copy with one value of the YAML changed."""
    settings = copy.deepcopy(settings)
    place = settings
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return settings


def make_data(factory: Factory) -> None:
    """Shards, pairs and captions."""
    create_new_shards(factory)
    for shard in shard_names(factory):
        ingest_shard(factory, shard)
    for name, captioner in factory.config.captioners.items():
        for shard in shard_names(factory):
            caption_shard(factory, name, shard, lambda prompt=captioner.prompt: Telling(prompt))


def make_recipe(factory: Factory, name: str) -> None:
    """Everything of one recipe, once its captions are there."""
    recipe = factory.config.recipe(name)
    shear_recipe(factory, recipe)
    merge_training_set(factory, recipe)
    train_recipe(factory, recipe, launch=train_here)
    measure_recipe(factory, recipe)


def make_recipes(factory: Factory) -> None:
    """Everything but the report."""
    make_data(factory)
    for recipe in factory.config.expanded_recipes():
        make_recipe(factory, recipe.name)


def make_everything(factory: Factory) -> None:
    make_recipes(factory)
    make_report(factory)


def make_whole(folder: Path) -> None:
    """Everything, below a folder."""
    make_everything(factory_of(write_settings(folder)))


def moved(settings: dict[str, Any], store: Path) -> dict[str, Any]:
    """The same factory on a copy of its store."""
    shutil.copytree(settings["store"], store)
    return edited(settings, "store", value=str(store))
