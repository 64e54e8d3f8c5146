"""A factory that has made an artifact of every kind there is, small enough to make each of them twice."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from small_factory import colour_name, picture

from caploom.captioning.backend import load_backend
from caploom.common.hashing import file_sha256
from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.report.make import make_report
from caploom.stages.captions import caption_shard
from caploom.stages.checkpoint import finetune_recipe, train_recipe
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.retrieval_metrics import measure_recipe
from caploom.stages.shards import create_new_shards
from caploom.stages.sheared import shear_recipe
from caploom.stages.training_set import merge_training_set
from caploom.storage.manifest import MANIFEST, Manifest
from caploom.storage.store import Artifact, Plan, Store
from caploom.training.launch import train_here

DEMO_MODEL = Path(__file__).parents[2] / "caploom" / "demo" / "captioners" / "tiny-llava"
CAPTIONER = "local"


@dataclass(frozen=True)
class Made:
    """A factory that has run: its folder, its YAML as a mapping, and itself."""

    folder: Path
    settings: dict[str, Any]
    factory: Factory

    def with_settings(self, **changes: Any) -> Factory:
        """The same store with another YAML."""
        return factory_of(self.folder, {**self.settings, **changes})

    def artifact(self, kind: str, *name: str) -> Artifact:
        """The first artifact of a kind, and perhaps of a name."""
        return self.factory.store.list(kind, *name)[0]


def write_sources(folder: Path) -> None:
    """Pictures of colours with captions in three sets, pictures by class, and a captioner of one's own."""
    for name, numbers in (("pairs", range(12)), ("held-out", range(20, 30)), ("target", range(30, 36))):
        (folder / name).mkdir()
        rows = []
        for number in numbers:
            picture(number).resize((64, 64)).save(folder / name / f"{number}.png")
            rows.append({"image": f"{number}.png", "caption": f"the {colour_name(number)} photo {number}"})
        if name == "pairs":
            # A row that says what another said, and one without its image.
            rows += [rows[0], {"image": "lost.png", "caption": "a picture that was lost"}]
        (folder / f"{name}.json").write_text(json.dumps(rows))
    for number in range(40, 46):
        (folder / "classes" / colour_name(number)).mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / "classes" / colour_name(number) / f"{number}.png")
    shutil.copytree(DEMO_MODEL, folder / "captioner")


def reader(name: str) -> dict[str, str]:
    return {"reader": "image_captions", "root": f"./{name}", "captions": f"./{name}.json"}


def settings_of() -> dict[str, Any]:
    trainer = {"model": "picture-book", "steps": 1, "batch_size": 4, "resized_cache": True, "device": "cpu"}
    return {
        "name": "reproducible",
        "store": "store",
        "pairs": reader("pairs"),
        "shard_size": 8,
        "captioners": {
            CAPTIONER: {
                "model": "./captioner",
                "prompt": "Describe <image> in English:",
                "decoding": {"max_new_tokens": 16, "sample": True, "temperature": 0.5},
                "batch_size": 4,
                "device": "cpu",
            }
        },
        "shears": {"short": ["first_sentence", {"match_corpus": "mean"}]},
        "trainers": {"small": trainer, "second": {**trainer, "learning_rate": 0.0001, "resized_cache": False}},
        "duplicates": {"leakage": "mark"},  # its few pictures are much alike, and some are evaluated on
        "evaluation_sets": {
            "held-out": reader("held-out"),
            "classes": {"reader": "image_folders", "root": "./classes"},
            "scenes": {"reader": "picture_book", "folder": "./scenes", "split": "evaluation", "scenes": 10},
        },
        "target_sets": {"target": reader("target")},
        "recipes": {
            "raw-only": {"captioners": [], "trainer": "small", "evaluation_sets": ["held-out"]},
            "sheared": {
                "captioners": "all",
                "shear": "short",
                "mix": {"raw_probability": 0.3},
                "filters": ["no_empty", {"min_words": 2}],
                "trainer": "small",
                "finetune": {"target_set": "target", "trainer": "second"},
            },
        },
    }


def factory_of(folder: Path, settings: dict[str, Any]) -> Factory:
    return Factory.from_config(parse_config(settings, base=folder, source="test.yaml"))


def make_everything(folder: Path) -> Made:
    """Run the whole factory; then a recipe that is filtered by what the first one's model thinks."""
    write_sources(folder)
    settings = settings_of()
    factory = factory_of(folder, settings)
    captioner = factory.config.captioners[CAPTIONER]
    for shard in create_new_shards(factory):
        ingest_shard(factory, shard)
        caption_shard(factory, CAPTIONER, shard, lambda: load_backend(captioner, factory.store))
    scorer = None
    for recipe in factory.config.expanded_recipes():
        shear_recipe(factory, recipe)
        merge_training_set(factory, recipe)
        checkpoint = train_recipe(factory, recipe, launch=train_here)
        scorer = scorer or checkpoint.folder
        if recipe.finetune:
            finetune_recipe(factory, recipe, launch=train_here)
        measure_recipe(factory, recipe)
    settings["recipes"]["scored"] = {
        "captioners": "all",
        "filters": [{"keep_top": 0.5, "model": str(scorer)}],
        "trainer": "small",
    }
    factory = factory_of(folder, settings)
    recipe = factory.config.recipe("scored")
    shear_recipe(factory, recipe)
    merge_training_set(factory, recipe)
    make_report(factory)
    return Made(folder, settings, factory)


def rewritten(store: Store, artifact: Artifact, **changes: Any) -> Artifact:
    """A manifest changed consistently: as if the artifact had been made so, under its own new address."""
    manifest = artifact.manifest.model_copy(update=changes)
    name = tuple(manifest.address.split("/")[1:-1])
    plan = Plan(
        kind=manifest.kind,
        name=name,
        code_version=manifest.code_version,
        configuration=manifest.configuration,
        inputs=tuple(manifest.inputs),
    )
    manifest = manifest.model_copy(update={"address": plan.address, "fingerprint": plan.fingerprint})
    folder = store.path(plan.address)
    if folder != artifact.folder.resolve():
        shutil.copytree(artifact.folder, folder)
    return _written(store, manifest)


def _written(store: Store, manifest: Manifest) -> Artifact:
    (store.path(manifest.address) / MANIFEST).write_text(manifest.model_dump_json(indent=2))
    found = store.read(manifest.address)
    assert found is not None
    return found


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
