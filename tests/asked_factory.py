"""A small factory that has run to the end, for the questions about it: two shards, one captioner, two recipes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from small_factory import ColourBackend, picture, settings_of

from caploom.config.factory import Factory
from caploom.config.factory_config import load_config
from caploom.evaluation.encoders import PairScorer
from caploom.evaluation.evaluate import evaluate_encoder
from caploom.stages.captions import caption_shard
from caploom.stages.evaluation_sets import evaluation_set
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.sheared import shear_recipe
from caploom.stages.stage import Ref
from caploom.stages.training_set import merge_training_set
from caploom.storage.store import Artifact, Draft

IMAGES = 14
NASTY = "<script>alert(1)</script> | `a` \x1b[31mred"
"""A raw caption that is to be shown as text, whoever shows it."""


def write_factory(folder: Path, **changes: Any) -> Path:
    """The YAML of a factory over `IMAGES` pictures, the first of which has a caption that wants to be code."""
    source = folder / "source"
    (source / "images").mkdir(parents=True)
    rows = []
    for number in range(IMAGES):
        picture(number).save(source / "images" / f"{number:04d}.png")
        rows.append({"image": f"{number:04d}.png", "caption": NASTY if number == 0 else f"photo {number}"})
    rows.append({"image": "0003.png", "caption": "photo 3, again"})
    (source / "images" / "broken.png").write_bytes(b"no picture")
    rows.append({"image": "broken.png", "caption": "broken"})
    (source / "captions.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "held-out").mkdir()
    held_out = []
    for number in range(3, 13):
        picture(number).save(folder / "held-out" / f"{number}.png")
        held_out.append({"image": f"{number}.png", "caption": f"a picture of number {number}"})
    (folder / "held-out.json").write_text(json.dumps(held_out), encoding="utf-8")
    held_out_reader = {
        "reader": "image_captions",
        "root": str(folder / "held-out"),
        "captions": str(folder / "held-out.json"),
    }
    recipes = {
        "raw-only": {"captioners": []},
        "sheared": {"captioners": "all", "shear": "first", "filters": [{"max_repeats": 3}]},
    }
    settings = settings_of(source, evaluation_sets={"held-out": held_out_reader}, recipes=recipes) | changes
    path = folder / "factory.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path


def captioned(path: Path) -> Factory:
    """The factory with its shards cut, ingested and captioned."""
    factory = Factory.from_config(load_config(path))
    create_new_shards(factory)
    for shard in shard_names(factory):
        ingest_shard(factory, shard)
        for captioner in factory.config.captioners:
            caption_shard(factory, captioner, shard, ColourBackend)
    return factory


def make_captioned(folder: Path) -> None:
    """The factory as far as its captions."""
    captioned(write_factory(folder))


def make_asked(folder: Path) -> None:
    """Both recipes measured, the raw one the worse."""
    factory = captioned(write_factory(folder))
    measured(factory, "raw-only", noise=2.0)
    measured(factory, "sheared", noise=0.5)


def copied(made: Path, folder: Path) -> Factory:
    """A factory's YAML and store once more in another folder, over the same pictures."""
    shutil.copytree(made / "store", folder / "store")
    settings = yaml.safe_load((made / "factory.yaml").read_text(encoding="utf-8")) | {"store": str(folder / "store")}
    path = folder / "factory.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return Factory.from_config(load_config(path))


def merged(factory: Factory, name: str) -> Artifact:
    """A recipe's training set."""
    recipe = factory.config.recipe(name)
    shear_recipe(factory, recipe)
    return merge_training_set(factory, recipe)


def measured(factory: Factory, name: str, *, noise: float = 0.0) -> Artifact:
    """A recipe's metrics, as of a model that sees pictures' colours, the worse the more noise."""
    merged(factory, name)
    recipe = factory.config.recipe(name)

    def train(draft: Draft) -> None:
        (draft.folder / "model.safetensors").write_text(f"{name} {noise}", encoding="utf-8")
        draft.summary = {"steps": 2, "samples_seen": 8, "seconds": 0.5, "final_loss": 1.25}

    checkpoint = factory.store.make(Graph(factory).plan(Ref("checkpoint", (recipe.name,))), train)
    pairs = evaluation_set(factory, "held-out").file("pairs.parquet")

    def measure(draft: Draft) -> None:
        out = draft.folder / "zero-shot" / "held-out"
        out.mkdir(parents=True)
        figures = evaluate_encoder(NumberEncoder(noise), pairs, out=out)["cosine"].to_dict()
        draft.summary = {"measurements": [{"stage": "zero-shot", "evaluation_set": "held-out", **figures}]}

    assert checkpoint.manifest.fingerprint == Graph(factory).plan(Ref("checkpoint", (recipe.name,))).fingerprint
    return factory.store.make(Graph(factory).plan(Ref("retrieval_metrics", (recipe.name,))), measure)


class NumberEncoder:
    """Embeds pictures by the number that a pixel of theirs tells, and captions by the number that they end with."""

    scoring = "cosine"
    pair_scorer: PairScorer | None = None

    def __init__(self, noise: float) -> None:
        self._noise = noise

    def embed_images(self, paths: Sequence[str], image_ids: Sequence[str], progress: Any = None) -> np.ndarray:
        numbers = [Image.open(path).getpixel((0, 0))[0] for path in paths]
        return self._embedded(numbers, seed=1)

    def embed_texts(self, texts: Sequence[str], progress: Any = None) -> np.ndarray:
        return self._embedded([int(text.split()[-1]) for text in texts], seed=2)

    def _embedded(self, numbers: list[int], seed: int) -> np.ndarray:
        exact = np.random.default_rng(0).normal(size=(256, 32))[numbers]
        noisy = exact + self._noise * np.random.default_rng(seed).normal(size=exact.shape)
        return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
