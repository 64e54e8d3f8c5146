"""`caploom checkpoint`: a trained model for other tools, written whole or not at all."""

import json
from pathlib import Path

import open_clip
import pytest
from click.testing import CliRunner
from transformers import CLIPModel

from caploom.cli import main
from caploom.stages.checkpoint import train_recipe
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.sheared import shear_recipe
from caploom.stages.training_set import merge_training_set
from caploom.storage.bucket import Bucket
from caploom.training.launch import train_here

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def trained(tmp_path: Path, write_source, make_factory):
    """A factory whose recipe raw-only is trained: the path of its YAML."""

    def train(model: str = "vit.json", **trainer: object) -> str:
        (tmp_path / "vit.json").write_text(json.dumps(VIT))
        settings = {"model": model, "steps": 1, "batch_size": 4, "device": "cpu", **trainer}
        factory = make_factory(write_source(12), trainers={"small": settings})
        create_new_shards(factory)
        for shard in shard_names(factory):
            ingest_shard(factory, shard)
        recipe = factory.config.recipe("raw-only")
        shear_recipe(factory, recipe)
        merge_training_set(factory, recipe)
        train_recipe(factory, recipe, launch=train_here)
        return str(tmp_path / "factory.yaml")

    return train


def run(*arguments: str):
    return CliRunner().invoke(main, ["checkpoint", *arguments])


def test_open_clip_loads_what_is_written(trained, tmp_path: Path) -> None:
    done = run(trained(), "raw-only", "--to", str(tmp_path / "out" / "clip"))
    assert done.exit_code == 0, done.output
    assert f'load with: open_clip.create_model_and_transforms("local-dir:{tmp_path}/out/clip")' in done.output
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out' / 'clip'}")
    assert model.visual.output_dim == 16
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["clip"]


def test_transformers_loads_what_is_written(trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = trained()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # an empty folder may be the one that one is in
    done = run(config, "raw-only", "--to", ".", "--format", "transformers")
    assert done.exit_code == 0, done.output
    assert CLIPModel.from_pretrained(tmp_path / "here").config.projection_dim == 16
    assert sorted(path.name for path in Path.cwd().iterdir()), "whoever stands there stands in a folder that is gone"


def test_a_checkpoint_is_written_to_object_storage(trained, tmp_path: Path, s3) -> None:
    place = f"s3://{s3[1]}/models/clip"
    done = run(trained(), "raw-only", "--to", place)
    assert done.exit_code == 0, done.output
    assert f'load with: open_clip.create_model_and_transforms("local-dir:{place}")' not in done.output
    Bucket(place).download("open_clip_config.json", tmp_path / "open_clip_config.json")
    Bucket(place).download("model.safetensors", tmp_path / "model.safetensors")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    assert model.visual.output_dim == 16
    again = run(str(tmp_path / "factory.yaml"), "raw-only", "--to", place)
    assert again.exit_code == 2
    assert f"{place}: there is something here already; name a prefix that is new or empty." in again.output


def test_what_cannot_be_exported_leaves_nothing(trained, tmp_path: Path) -> None:
    done = run(trained("picture-book"), "raw-only", "--to", str(tmp_path / "out"), "--format", "transformers")
    assert done.exit_code == 2
    assert "CLIPModel has no counterpart of the vision tower" in done.output
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["raw-only", "--to", "full"], "full: there is something here already; name a folder that is new or empty."),
        (["sheared", "--to", "new"], "materialize captions/colours [shard-00000] first"),
        (["raw-only", "--to", "new", "--stage", "fine-tuned"], "The recipe raw-only has no second stage"),
        (["nobody", "--to", "new"], 'There is no recipe "nobody"'),
    ],
)
def test_mistakes_are_sentences(trained, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    arguments = [str(tmp_path / each) if each in ("full", "new") else each for each in arguments]
    done = run(trained(), *arguments)
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert not (tmp_path / "new").exists()


def test_a_blip_is_none_of_open_clip_s(trained, tmp_path: Path) -> None:
    config = trained("blip-picture-book", kind="blip")
    done = run(config, "raw-only", "--to", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert "A BLIP is not an open_clip model; export it with --format transformers." in done.output
    done = run(config, "raw-only", "--to", str(tmp_path / "out"), "--format", "transformers")
    assert done.exit_code == 0, done.output
    assert sorted(each.name for each in (tmp_path / "out").iterdir())[:3] == [
        "blip_config.json",
        "captioning",
        "losses.parquet",
    ]
