"""The jobs of runs: captions by shard, experiments by recipe, the report over all."""

from typing import Any

import dagster as dg

from caploom.report.make import ABLATION_REPORT
from caploom.stages.checkpoint import CHECKPOINT
from caploom.stages.raw_pairs import RAW_PAIRS
from caploom.stages.retrieval_metrics import RETRIEVAL_METRICS
from dagster_project.assets.dependencies import FactoryAssets
from dagster_project.layout import RECIPE
from dagster_project.partitions import SHARD

CUT_SHARDS = "cut_shards"
INGEST_SHARDS = "ingest_shards"
CAPTION_SHARDS = "caption_shards"
RUN_RECIPE = "run_recipe"
REPORT = "report"


def _what_recipes_do(assets: FactoryAssets) -> str:
    if assets.has(RETRIEVAL_METRICS):
        return "Shears, merges, trains and measures a recipe."
    return "Shears, merges and trains a recipe." if assets.has(CHECKPOINT) else "Shears and merges a recipe's captions."


def factory_jobs(assets: FactoryAssets) -> list[Any]:
    """The jobs; after `ingest_shards`, a part of the next one, they make up the whole graph, in this order."""
    raw_pairs = assets.select(RAW_PAIRS)
    jobs = [
        dg.define_asset_job(INGEST_SHARDS, selection=raw_pairs, description="Ingests shards, without captioning."),
        dg.define_asset_job(
            CAPTION_SHARDS,
            selection=assets.partitioned_by(SHARD),
            description="Ingests shards and has every captioner caption them.",
        ),
        dg.define_asset_job(
            RUN_RECIPE,
            selection=assets.partitioned_by(RECIPE),
            description=_what_recipes_do(assets),
        ),
    ]
    if assets.has(ABLATION_REPORT):
        alone = assets.partitioned_by(None)
        jobs.append(dg.define_asset_job(REPORT, selection=alone, description="Compares the recipes."))
    return jobs
