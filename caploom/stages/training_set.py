"""The `training_set` stage: raw and sheared captions joined by the image's identity, in a seeded order.

Written twice: as Parquet shards that training reads, and (unless switched off) as the seed's JSON for people and other
tools. Memory does not grow with the number of captions: `buckets` says how.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from caploom.common.progress import Progress
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.errors import TrainingError
from caploom.stages.exclusions import Exclusions, exclusions
from caploom.stages.on_ray.merge import merge_on_ray, reads_much
from caploom.stages.raw_pairs import ingested_shards, raw_pairs_plan
from caploom.stages.shards import shard_names
from caploom.stages.sheared import sheared_captions_plan, sheared_tables
from caploom.storage.store import Artifact, Draft, Plan
from caploom.training_set.buckets import Buckets
from caploom.training_set.filter_context import FilterContext, Passes
from caploom.training_set.filters import PreparedFilters, apply_filters, filters_identity, prepare_filters
from caploom.training_set.mixes import training_rows
from caploom.training_set.row_files import dropped_files, row_files
from caploom.training_set.settings import MixSettings
from caploom.training_set.tally import Tally
from caploom.training_set.training_json import TrainingJson

KIND = "training_set"
CODE_VERSION = "3"
ORDER_SEED = 0


def training_set_plan(factory: Factory, recipe: Recipe) -> Plan:
    """The plan of a recipe's training set; raises `MissingArtifactError` when a shard or a captioner is not ready."""
    sheared = factory.store.require(
        sheared_captions_plan(factory, recipe), make_with=f"materialize sheared_captions [{recipe.name}]"
    )
    pairs = [
        factory.store.require(raw_pairs_plan(factory, shard), make_with=f"materialize raw_pairs [{shard}]")
        for shard in shard_names(factory)
    ]
    left_out = exclusions(factory, recipe, pairs)
    return training_set_stage(factory, recipe, left_out).of(artifact.as_input() for artifact in (sheared, *pairs))


def training_set_stage(factory: Factory, recipe: Recipe, left_out: Exclusions | None = None) -> Plan:
    """The same without the inputs: the recipe's sheared captions, then the raw pairs of every shard."""
    return Plan(
        kind=KIND,
        name=(recipe.base,),
        code_version=CODE_VERSION,
        configuration={
            "captioners": list(recipe.captioners),
            "filters": filters_identity(recipe.filters),
            "mix": recipe.mix.model_dump(mode="json"),
            "json": factory.config.training_json,
            **(left_out.identity() if left_out is not None else {}),
        },
    )


def merge_training_set(factory: Factory, recipe: Recipe, progress: Progress | None = None) -> Artifact:
    """Make a recipe's training set, unless it is made.

    Files: `rows-*.parquet` (schema TRAINING_ROWS), `dropped-*.parquet` (schema DROPPED) where filters dropped
    something, and `training.json`.
    """

    plan = training_set_plan(factory, recipe)

    def build(draft: Draft) -> None:
        pairs, sheared = ingested_shards(factory), sheared_tables(factory, recipe)
        if not pairs:
            raise TrainingError(f"The recipe {recipe.name} has no raw pairs: no shard has been ingested.")
        left_out = exclusions(factory, recipe, pairs)
        if reads_much(factory, [*pairs, *sheared]):
            tally, rows_in = merge_on_ray(
                factory, recipe, draft, plan.fingerprint, (pairs, sheared), ORDER_SEED, left_out, progress
            )
        else:
            tally, rows_in = _merge_here(factory, recipe, draft, (pairs, sheared), left_out, progress)
        draft.rows = tally.row_count(rows_in)
        draft.seeds = {"order": ORDER_SEED}
        draft.summary = {**tally.summary(), "duplicates": left_out.summary()}

    return factory.store.make(plan, build)


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
        context = FilterContext(factory.store, recipe.name, recipe.captioners)
        filters = prepare_filters(recipe.filters, Passes(buckets.scan), context, left_out)
        json = factory.config.training_json
        tally = write_training_set(buckets, filters, recipe.mix, draft.folder, json=json, progress=progress)
        return tally, buckets.rows_in


def training_files(training_set: Artifact) -> list[Path]:
    """The Parquet files of a training set, in their order."""
    names = sorted(name for name in training_set.manifest.files if name.startswith("rows-"))
    return [training_set.file(name) for name in names]


def write_training_set(
    buckets: Buckets,
    filters: PreparedFilters,
    mix: MixSettings,
    folder: Path,
    *,
    json: bool,
    progress: Progress | None = None,
) -> Tally:
    """Write the files of a training set into a folder; raises `TrainingError` when the filters leave nothing."""
    tally, rows_out, dropped_out = Tally(), row_files(folder), dropped_files(folder)
    with ExitStack() as stack:
        json_out = stack.enter_context(TrainingJson(folder / "training.json")) if json else None
        for bucket in buckets:
            kept, dropped = apply_filters(bucket.captions, filters)
            tally.reasons.update(repeated_caption=bucket.repeated, orphan_caption=bucket.orphans)
            dropped_out.write(dropped)
            rows = training_rows(kept, mix)
            tally.count(kept, rows)
            rows_out.write(rows)
            if json_out is not None:
                json_out.write(rows)
            if progress is not None:
                failed = tally.reasons.total() + sum(filters.dropped.values())
                progress(tally.out + failed, buckets.rows_in, failed)
    filters.refuse_if_all_dropped()
    rows_out.close(at_least_one=True)
    dropped_out.close()
    tally.reasons.update(filters.dropped)
    return tally
