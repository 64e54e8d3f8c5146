"""What the report knows of each measured recipe: the artifacts behind it, what it cost, and every query's rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.errors import StoreError
from caploom.evaluation.evaluate import RANKS_FILE
from caploom.evaluation.metrics import DIRECTIONS
from caploom.questions.results.results import ArmResult
from caploom.storage.manifest import InputRecord
from caploom.storage.store import Artifact, Store
from caploom.storage.tables import read_table


@dataclass(frozen=True)
class Arm:
    """One trained recipe (of one seed) and what it was made from.

    Attributes:
        recipe: with every name resolved.
        metrics: what it was measured as.
        checkpoints: of its stages, in their order.
        training_set: what it was trained on.
        sheared: the captions in it.
        captions: of its captioners, one artifact a captioner and shard.
        caption_seconds: of all its captioners' generations together, as if no other recipe shared them.
        training_seconds: of all its stages.
    """

    recipe: Recipe
    metrics: Artifact
    checkpoints: tuple[Artifact, ...]
    training_set: Artifact
    sheared: Artifact
    captions: tuple[Artifact, ...]
    caption_seconds: float
    training_seconds: float

    @property
    def chain(self) -> tuple[Artifact, ...]:
        """From the metrics back to the captions' shears."""
        return (self.metrics, *self.checkpoints, self.training_set, self.sheared)

    @property
    def captions_per_image(self) -> float:
        """Captions that training draws from, an image."""
        summary = self.training_set.manifest.summary
        return float(summary["captions"] / max(summary["images"], 1))

    @property
    def mean_words(self) -> float:
        """Mean length of the training set's captions in words, raw ones among them."""
        summary = self.training_set.manifest.summary
        words = sum(summary["mean_words_by_source"][name] * n for name, n in summary["captions_by_source"].items())
        return float(words / max(summary["captions"], 1))


@dataclass(frozen=True)
class Ranks:
    """Every query's rank in one measurement, 1 is best.

    Attributes:
        image_ids: (N,) of the images asked for their captions, sorted.
        of_images: (N,) their ranks.
        text_ids: (T,) of the captions asked for their images, sorted: `<image_id>#<place>`.
        of_texts: (T,) their ranks.
        owners: (T,) which image each caption is of, as a place in `image_ids`.
    """

    image_ids: np.ndarray
    of_images: np.ndarray
    text_ids: np.ndarray
    of_texts: np.ndarray
    owners: np.ndarray

    def of(self, direction: str) -> np.ndarray:
        """The ranks of one direction."""
        return self.of_images if direction == DIRECTIONS[0] else self.of_texts


def arms_of(factory: Factory, results: Sequence[ArmResult]) -> list[Arm]:
    """The arms with everything behind them; raises `StoreError` when something of it is gone."""
    seconds: dict[str, float] = {}
    return [_arm(factory.store, each, seconds) for each in results]


def ranks_of(metrics: Artifact, measurement: dict[str, Any]) -> Ranks:
    """The ranks behind one of its measurements; raises `StoreError` when their file is gone or damaged."""
    table = read_table(metrics.file(f"{measurement['stage']}/{measurement['evaluation_set']}/{RANKS_FILE}"))
    table = table.filter(pc.equal(table["scoring"], measurement["scoring"])).sort_by("query")
    image_side = pc.equal(table["direction"], DIRECTIONS[0])
    images, texts = table.filter(image_side), table.filter(pc.invert(image_side))
    image_ids = np.asarray(images["query"].to_pylist(), dtype=str)
    text_ids = np.asarray(texts["query"].to_pylist(), dtype=str)
    of_text = np.array([each.rsplit("#", 1)[0] for each in text_ids.tolist()], dtype=str)
    return Ranks(
        image_ids,
        images["rank"].to_numpy(),
        text_ids,
        texts["rank"].to_numpy(),
        np.searchsorted(image_ids, of_text),
    )


def _arm(store: Store, result: ArmResult, seconds: dict[str, float]) -> Arm:
    inputs = [_read(store, record) for record in result.metrics.manifest.inputs]
    checkpoints = tuple(each for each in inputs if each.manifest.kind.endswith("checkpoint"))
    training_set = _read(store, checkpoints[0].manifest.inputs[0])
    sheared = _read(store, training_set.manifest.inputs[0])
    parts = [_read(store, record) for record in sheared.manifest.inputs]
    captions = tuple(_read(store, part.manifest.inputs[0]) for part in parts)
    for artifact in captions:
        if artifact.manifest.address not in seconds:
            spent = read_table(artifact.file("captions.parquet"), ["seconds"])["seconds"]
            seconds[artifact.manifest.address] = float(pc.sum(spent).as_py() or 0.0)
    return Arm(
        recipe=result.recipe,
        metrics=result.metrics,
        checkpoints=checkpoints,
        training_set=training_set,
        sheared=sheared,
        captions=captions,
        caption_seconds=sum(seconds[artifact.manifest.address] for artifact in captions),
        training_seconds=sum(float(each.manifest.summary["seconds"]) for each in checkpoints),
    )


def _read(store: Store, record: InputRecord) -> Artifact:
    artifact = store.read(record.address)
    if artifact is None:
        raise StoreError(f"{record.address}: the report tells of it and it is gone; run the recipe again.")
    return artifact
