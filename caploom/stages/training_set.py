"""The `training_set` stage: raw and sheared captions joined by the image's identity, in a seeded order.

Written twice: as Parquet shards that training reads, and (unless switched off) as the seed's JSON for people and other
tools. Memory does not grow with the number of captions: `buckets` says how.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caploom.common.progress import Progress
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.errors import TrainingError
from caploom.stages.captions_cost import captions_of
from caploom.stages.checks import ORPHAN_FREE, ROWS_ACCOUNTED, CheckOutcome, accounted, orphan_free
from caploom.stages.exclusions import exclusion_refs, known_exclusions
from caploom.stages.graph import Graph, graph_of
from caploom.stages.raw_pairs import ingested_shards, raw_captions_in
from caploom.stages.scores import scorer_of
from caploom.stages.sheared import tables_of
from caploom.stages.stage import Alike, Checks, Configuration, Cost, Key, Making, Piece, Ref, Stage, Tools, by_rows
from caploom.stages.words import filters_in_words, mix_in_words
from caploom.storage.records import DROPPED, TRAINING_ROWS
from caploom.storage.store import Artifact, Draft
from caploom.storage.tables import read_batches
from caploom.training_set.buckets import Buckets
from caploom.training_set.exclusions import Exclusions
from caploom.training_set.filter_context import FilterContext, Passes
from caploom.training_set.filters import filters_identity, prepare_filters
from caploom.training_set.order import digest_words, image_digests
from caploom.training_set.tally import Tally
from caploom.training_set.write import training_files, write_training_set

KIND = "training_set"
CODE_VERSION = "3"
ORDER_SEED = 0


def merge_training_set(factory: Factory | Graph, recipe: Recipe, progress: Progress | None = None) -> Artifact:
    """Make a recipe's training set, unless it is made.

    Files: `rows-*.parquet` (schema TRAINING_ROWS), `dropped-*.parquet` (schema DROPPED) where filters dropped
    something, and `training.json`.
    """
    return graph_of(factory, recipe).make(Ref(KIND, (recipe.name,)), Tools(progress=progress))


def _build(making: Making, draft: Draft) -> None:
    from caploom.stages.on_ray.merge import merge_on_ray, reads_much  # needs fsspec, which planning does without

    factory, recipe, progress = making.factory, making.recipe, making.tools.progress
    (whole,), pairs = making.inputs("sheared_captions"), making.inputs("raw_pairs")
    if not pairs:
        raise TrainingError(f"The recipe {recipe.name} has no raw pairs: no shard has been ingested.")
    sheared, left_out = tables_of(making.graph, whole), known_exclusions(making.graph, recipe)
    if reads_much(factory, [*pairs, *sheared]):
        tally, rows_in = merge_on_ray(
            factory, recipe, draft, making.plan.fingerprint, (pairs, sheared), ORDER_SEED, left_out, progress
        )
    else:
        tally, rows_in = _merge_here(factory, recipe, draft, (pairs, sheared), left_out, progress)
    draft.rows = tally.row_count(rows_in)
    draft.seeds = {"order": ORDER_SEED}
    draft.summary = {**tally.summary(), "duplicates": left_out.summary()}


def _merge_here(
    factory: Factory,
    recipe: Recipe,
    draft: Draft,
    inputs: tuple[Sequence[Artifact], Sequence[Artifact]],
    left_out: Exclusions,
    progress: Progress | None,
) -> tuple[Tally, int]:
    """The counts of the merge in this process, and how many rows came in."""
    pairs = [artifact.file("pairs.parquet") for artifact in inputs[0]]
    sheared = [(each.manifest.configuration["captioner"], each.file("sheared.parquet")) for each in inputs[1]]
    settings = factory.config.merge
    spill = settings.spill or draft.folder
    with Buckets(pairs, sheared, spill, seed=ORDER_SEED, memory=settings.memory_bytes) as buckets:
        context = FilterContext(factory.store, recipe.name, recipe.captioners, scorer_of(factory))
        filters = prepare_filters(recipe.filters, Passes(buckets.scan), context, left_out)
        json = factory.config.training_json
        tally = write_training_set(buckets, filters, recipe.mix, draft.folder, json=json, progress=progress)
        return tally, buckets.rows_in


def check_training_set(graph: Graph, artifact: Artifact) -> list[CheckOutcome]:
    """Captions in = captions out + those left out; each row's image is a raw pair's, and no image has two rows.

    Images are compared by the first 64 bits of their identities: 8 bytes of memory each, whatever their number.
    """
    batches = (read_batches(each.file("pairs.parquet"), ["image_id"]) for each in ingested_shards(graph))
    words = (_image_words(batch.column("image_id")) for batch in chain.from_iterable(batches))
    known = np.unique(np.concatenate([np.empty(0, np.uint64), *words]))
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
        accounted(rows.rows_in if rows else 0, out, rows.rows_failed if rows else 0),
        orphan_free(orphans=orphans, doubled=doubled if one_row_an_image else 0),
    ]


def _image_words(image_ids: pa.Array) -> np.ndarray:
    return digest_words(image_digests(image_ids))[:, 0]


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are among the known ones, which are sorted."""
    if len(known) == 0:
        return np.zeros(len(values), bool)
    return np.asarray(known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values)


def _settings(graph: Graph, key: Key) -> Configuration:
    recipe = graph.recipe(key[0])
    return {
        "captioners": list(recipe.captioners),
        "filters": filters_identity(recipe.filters),
        "mix": recipe.mix.model_dump(mode="json"),
        "json": graph.config.training_json,
    }


def _shown(configuration: Mapping[str, Any]) -> Configuration:
    return {"training_json" if key == "json" else key: value for key, value in configuration.items()}


def _in_words(configuration: Mapping[str, Any]) -> str:
    captioners = ", ".join(configuration["captioners"]) or "raw captions only"
    return "; ".join([mix_in_words(configuration["mix"]), filters_in_words(configuration["filters"]), captioners])


def _line(graph: Graph, key: Key) -> str:
    """Training sets together by their filters, which decide how long they take."""
    filters = ", ".join(step.filter for step in graph.recipe(key[0]).filters)
    return f"filters {filters}" if filters else "no filters"


def _units(graph: Graph, keys: Sequence[Key]) -> tuple[int, bool]:
    """The captions that they are merged of; certain once all of those are made."""
    recipes = [graph.recipe(name) for (name,) in keys]
    used = dict.fromkeys(captioner for recipe in recipes for captioner in recipe.captioners)
    exact = all(
        graph.find(ref) is not None
        for shard in graph.shards
        for ref in (Ref("raw_pairs", (shard,)), *(Ref("captions", (captioner, shard)) for captioner in used))
    )
    captions = sum(
        raw_captions_in(graph, shard) + sum(captions_of(graph, captioner, shard) for captioner in recipe.captioners)
        for recipe in recipes
        for shard in graph.shards
    )
    return captions, exact or not recipes


def _used_by(graph: Graph, keys: Sequence[Key]) -> int:
    """The trainings on one of them: as many as it has seeds."""
    trainings = Counter(recipe.base for recipe in graph.recipes.values())
    return max(trainings[graph.recipe(name).base] for (name,) in keys)


def _alike(graph: Graph, key: Key) -> list[Alike]:
    filters = filters_identity(graph.recipe(key[0]).filters)
    words = "captions merged with these filters" if filters else "captions merged"
    return [Alike(words, (), lambda graph, each: each.configuration.get("filters", []) == filters)]


TRAINING_SET = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("recipe",),
    keys=lambda graph: [(name,) for name in graph.recipes],
    settings=_settings,
    facts=lambda graph, key: known_exclusions(graph, graph.recipe(key[0])).identity(),
    build=_build,
    upstream=("sheared_captions", "raw_pairs", "near_duplicates", "leakage"),
    inputs=lambda graph, key: [Ref("sheared_captions", key), *graph.refs("raw_pairs")],
    asks=lambda graph, key: exclusion_refs(graph, graph.recipe(key[0])),
    name=lambda graph, key: (graph.recipe(key[0]).base,),
    shown=_shown,
    words=_in_words,
    unit="captions",
    cost=Cost(
        unit="captions",
        line=_line,
        units=_units,
        shared_by=_used_by,
        measured=by_rows,
        alike=_alike,
        verb="merge",
    ),
    tables={"rows-*.parquet": TRAINING_ROWS, "dropped-*.parquet": DROPPED},
    texts="select image_id, unnest(sources) as source, unnest(captions) as said"
    " from (select image_id, sources, captions from read_parquet(?))",
    fact_keys=frozenset({"excluded_images"}),
    ignored_settings=frozenset({"json"}),
    checks=Checks((ROWS_ACCOUNTED, ORPHAN_FREE), check_training_set),
    piece=Piece("mix"),
    remake="caploom.reproduce.remake:merge",
)
