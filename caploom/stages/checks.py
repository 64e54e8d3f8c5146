"""What must always hold of an artifact, counted again from its tables and not taken from its manifest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caploom.captioning.canary_gate import canary_plan
from caploom.config.factory import Factory
from caploom.questions.results.results import DIRECTIONS
from caploom.stages.captions import read_captions, shard_images
from caploom.stages.raw_pairs import read_pairs
from caploom.stages.retrieval_metrics import KIND as METRICS_KIND
from caploom.stages.retrieval_metrics import RETRIEVAL
from caploom.stages.shards import shard_listing
from caploom.stages.training_set import training_files
from caploom.storage.store import Artifact
from caploom.storage.tables import read_batches, read_table
from caploom.training_set.order import digest_words, image_digests

BATCHED_EQUALS_SINGLE = "batched_equals_single"
ROWS_ACCOUNTED = "rows_accounted"
ORPHAN_FREE = "orphan_free"
NEVER_EMPTY = "never_empty"
LOSS_IS_FINITE = "loss_is_finite"
BETTER_THAN_CHANCE = "better_than_chance"

DESCRIPTIONS = {
    BATCHED_EQUALS_SINGLE: "The canary: before the first shard, a few images in a batch got what they get alone.",
    ROWS_ACCOUNTED: "Rows in = rows out + rows failed, counted again from the tables: nothing lost, nothing doubled.",
    ORPHAN_FREE: "Every row is of an image that was ingested, and none is there twice.",
    NEVER_EMPTY: "No sheared caption is empty.",
    LOSS_IS_FINITE: "The training loss is a number to the end.",
    BETTER_THAN_CHANCE: "Recall@1 is above chance both ways on every evaluation set; a warning that blocks nothing.",
}
"""What each check says, by its name."""


@dataclass(frozen=True)
class CheckOutcome:
    """A check's name, whether it holds, one sentence, and its figures."""

    name: str
    passed: bool
    sentence: str
    figures: dict[str, Any] = field(default_factory=dict)


def check_raw_pairs(factory: Factory, artifact: Artifact) -> list[CheckOutcome]:
    """Rows of the source in = pairs + failures."""
    listing = shard_listing(factory, artifact.manifest.configuration["shard"])
    rows_in = len(read_table(listing.file("rows.parquet"), ["row"]))
    return [_accounted(rows_in, len(read_pairs(artifact)), len(read_table(artifact.file("failures.parquet"))))]


def check_captions(factory: Factory, artifact: Artifact) -> list[CheckOutcome]:
    """Images in = captions + failures; each caption is of an image of the shard, and no image has two."""
    images = {ref.image_id for ref in shard_images(factory, artifact.manifest.configuration["shard"])}
    captions = read_captions(artifact).column("image_id").to_pylist()
    failed = read_table(artifact.file("failures.parquet")).column("key").to_pylist()
    return [
        _canary(factory, artifact),
        _accounted(len(images), len(captions), len(failed)),
        _orphan_free(orphans=len({*captions, *failed} - images), doubled=len(captions) - len(set(captions))),
    ]


def check_sheared(artifact: Artifact, parts: Sequence[Artifact]) -> list[CheckOutcome]:
    """Of a recipe: captions in = captions out, and none became empty."""
    rows = artifact.manifest.rows
    return _sheared(rows.rows_in if rows else 0, parts)


def check_sheared_tables(parts: Sequence[Artifact]) -> list[CheckOutcome]:
    """The same of a captioner's tables, one a shard."""
    return _sheared(sum(part.manifest.rows.rows_in for part in parts if part.manifest.rows), parts)


def _sheared(rows_in: int, parts: Sequence[Artifact]) -> list[CheckOutcome]:
    captions = empty = 0
    for part in parts:
        for batch in read_batches(part.file("sheared.parquet"), ["caption"]):
            captions += len(batch)
            blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(batch.column("caption"))), 0)
            empty += pc.sum(blank).as_py() or 0
    return [
        _accounted(rows_in, captions, 0),
        CheckOutcome(NEVER_EMPTY, empty == 0, f"{empty} sheared captions are empty.", {"empty": empty}),
    ]


def check_training_set(factory: Factory, artifact: Artifact, pairs: list[Artifact]) -> list[CheckOutcome]:
    """Captions in = captions out + those left out; each row's image is a raw pair's, and no image has two rows.

    Images are compared by the first 64 bits of their identities: 8 bytes of memory each, whatever their number.
    """
    known = np.unique(np.concatenate([np.empty(0, np.uint64), *(_image_words(each) for each in _pair_images(pairs))]))
    rows = artifact.manifest.rows
    one_row_an_image = artifact.manifest.configuration["mix"]["strategy"] != "concatenate"
    out = orphans = doubled = 0
    last: int | None = None
    for path in training_files(artifact):
        for batch in read_batches(path, ["image_id", "captions"]):
            out += pc.sum(pc.list_value_length(batch.column("captions"))).as_py() or 0
            images = _image_words(batch.column("image_id"))
            orphans += int(np.count_nonzero(~_among(images, known)))
            # An image's rows stand side by side: the order has them so.
            doubled += int(np.count_nonzero(images[1:] == images[:-1])) + int(len(images) > 0 and images[0] == last)
            last = int(images[-1]) if len(images) else last
    return [
        _accounted(rows.rows_in if rows else 0, out, rows.rows_failed if rows else 0),
        _orphan_free(orphans=orphans, doubled=doubled if one_row_an_image else 0),
    ]


def _pair_images(pairs: list[Artifact]) -> Iterator[pa.Array]:
    for each in pairs:
        for batch in read_batches(each.file("pairs.parquet"), ["image_id"]):
            yield batch.column("image_id")


def _image_words(image_ids: pa.Array) -> np.ndarray:
    return digest_words(image_digests(image_ids))[:, 0]


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are among the known ones, which are sorted."""
    if len(known) == 0:
        return np.zeros(len(values), bool)
    return np.asarray(known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values)


def check_checkpoint(artifact: Artifact) -> list[CheckOutcome]:
    """The loss is a number to the end and has fallen."""
    first, last = artifact.manifest.summary["first_loss"], artifact.manifest.summary["final_loss"]
    sentence = f"The loss went from {first:.3f} to {last:.3f}."
    # False for NaN too: no comparison with it holds.
    return [CheckOutcome(LOSS_IS_FINITE, last < float("inf"), sentence, {"first": first, "final": last})]


def check_metrics(artifact: Artifact) -> list[CheckOutcome]:
    """Recall@1 is above chance, both ways, on every evaluation set."""
    assert artifact.manifest.kind == METRICS_KIND
    worse = [
        f"{each['evaluation_set']} {direction.replace('_', ' ')} {each[direction]['recall@1']:.4f}"
        for each in artifact.manifest.summary["measurements"]
        if each["kind"] == RETRIEVAL
        for direction in DIRECTIONS
        if each[direction]["recall@1"] <= each[direction]["chance@1"]
    ]
    sentence = f"Not above chance: {', '.join(worse)}." if worse else "Recall@1 is above chance both ways."
    return [CheckOutcome(BETTER_THAN_CHANCE, not worse, sentence, {"not_above_chance": worse})]


def _canary(factory: Factory, captions: Artifact) -> CheckOutcome:
    configuration = captions.manifest.configuration
    canary = factory.store.find(canary_plan(configuration["captioner"], configuration["captioner_fingerprint"]))
    if canary is None:
        return CheckOutcome(BATCHED_EQUALS_SINGLE, True, "Nothing was generated in batches.", {"images": 0})
    images = canary.manifest.summary["images"]
    sentence = f"{images} images got in one batch what they get alone."
    return CheckOutcome(BATCHED_EQUALS_SINGLE, True, sentence, canary.manifest.summary)


def _accounted(rows_in: int, rows_out: int, rows_failed: int) -> CheckOutcome:
    figures = {"rows_in": rows_in, "rows_out": rows_out, "rows_failed": rows_failed}
    sentence = f"{rows_in} rows in, {rows_out} out, {rows_failed} failed."
    return CheckOutcome(ROWS_ACCOUNTED, rows_in == rows_out + rows_failed, sentence, figures)


def _orphan_free(*, orphans: int, doubled: int) -> CheckOutcome:
    sentence = f"{orphans} rows are of no known image, {doubled} are there twice."
    return CheckOutcome(ORPHAN_FREE, orphans == 0 and doubled == 0, sentence, {"orphans": orphans, "doubled": doubled})
