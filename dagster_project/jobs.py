"""The jobs of runs: captions by shard, experiments by recipe, the report over all."""

from typing import Any

import dagster as dg

from caploom.config.factory_config import FactoryConfig

CUT_SHARDS = "cut_shards"
INGEST_SHARDS = "ingest_shards"
CAPTION_SHARDS = "caption_shards"
RUN_RECIPE = "run_recipe"
REPORT = "report"


def factory_jobs(config: FactoryConfig) -> list[Any]:
    """The jobs; after `ingest_shards`, a part of the next one, they make up the whole graph, in this order."""
    captions = dg.AssetSelection.assets(*(["captions", captioner] for captioner in config.captioners))
    raw_pairs = dg.AssetSelection.assets("raw_pairs")
    experiments = dg.AssetSelection.assets("sheared_captions", "training_set", "checkpoint", "retrieval_metrics")
    return [
        dg.define_asset_job(INGEST_SHARDS, selection=raw_pairs, description="Ingests shards, without captioning."),
        dg.define_asset_job(
            CAPTION_SHARDS,
            selection=raw_pairs | captions if config.captioners else raw_pairs,
            description="Ingests shards and has every captioner caption them.",
        ),
        dg.define_asset_job(
            RUN_RECIPE,
            selection=experiments,
            description="Shears, merges, trains and measures a recipe.",
        ),
        dg.define_asset_job(
            REPORT, selection=dg.AssetSelection.assets("ablation_report"), description="Compares the recipes."
        ),
    ]
