"""The jobs of runs: captions by shard, experiments by recipe, the report over all."""

from typing import Any

import dagster as dg

from caploom.stages.raw_pairs import RAW_PAIRS
from dagster_project.assets.dependencies import FactoryAssets
from dagster_project.layout import RECIPE
from dagster_project.partitions import SHARD

CUT_SHARDS = "cut_shards"
INGEST_SHARDS = "ingest_shards"
CAPTION_SHARDS = "caption_shards"
RUN_RECIPE = "run_recipe"
REPORT = "report"


def factory_jobs(assets: FactoryAssets) -> list[Any]:
    """The jobs; after `ingest_shards`, a part of the next one, they make up the whole graph, in this order."""
    raw_pairs = assets.select(RAW_PAIRS)
    return [
        dg.define_asset_job(INGEST_SHARDS, selection=raw_pairs, description="Ingests shards, without captioning."),
        dg.define_asset_job(
            CAPTION_SHARDS,
            selection=assets.partitioned_by(SHARD),
            description="Ingests shards and has every captioner caption them.",
        ),
        dg.define_asset_job(
            RUN_RECIPE,
            selection=assets.partitioned_by(RECIPE),
            description="Shears, merges, trains and measures a recipe.",
        ),
        dg.define_asset_job(REPORT, selection=assets.partitioned_by(None), description="Compares the recipes."),
    ]
