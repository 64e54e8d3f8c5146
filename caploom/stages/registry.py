"""Every step of the factory, upstream first: its kind, and where it is declared."""

from functools import cache
from importlib import import_module

from caploom.common.settings import nearest
from caploom.errors import StoreError
from caploom.stages.stage import Stage

STAGES = {
    "shards": "caploom.stages.shards:SHARDS",
    "raw_pairs": "caploom.stages.raw_pairs:RAW_PAIRS",
    "canaries": "caploom.stages.canaries:CANARIES",
    "captions": "caploom.stages.captions:CAPTIONS",
    "raw_words": "caploom.stages.raw_words:RAW_WORDS",
    "sheared": "caploom.stages.sheared:SHEARED",
    "sheared_captions": "caploom.stages.sheared:SHEARED_CAPTIONS",
    "near_duplicates": "caploom.stages.duplicates:NEAR_DUPLICATES",
    "leakage": "caploom.stages.duplicates:LEAKAGE",
    "scores": "caploom.stages.scores:SCORES",
    "training_set": "caploom.stages.training_set:TRAINING_SET",
    "target_set": "caploom.stages.target_set:TARGET_SET",
    "resized_images": "caploom.stages.resized_images:RESIZED_IMAGES",
    "checkpoint": "caploom.stages.checkpoint:CHECKPOINT",
    "finetuned_checkpoint": "caploom.stages.checkpoint:FINETUNED_CHECKPOINT",
    "evaluation_pairs": "caploom.stages.evaluation_sets:EVALUATION_PAIRS",
    "classification_images": "caploom.stages.evaluation_sets:CLASSIFICATION_IMAGES",
    "retrieval_metrics": "caploom.stages.retrieval_metrics:RETRIEVAL_METRICS",
    "ablation_report": "caploom.report.make:ABLATION_REPORT",
}
"""Kind to `"module:Name"`, imported when it is asked for."""


def stages() -> list[Stage]:
    """Every declared step, upstream first."""
    return [load_stage(kind) for kind in STAGES]


def load_stage(kind: str) -> Stage:
    """The step of a kind; raises `StoreError` naming the known ones."""
    where = STAGES.get(kind)
    if where is None:
        raise StoreError(
            f'There is no kind of artifact "{kind}"; known: {", ".join(STAGES)}{nearest(kind, list(STAGES))}.'
        )
    return _loaded(where)


@cache
def _loaded(where: str) -> Stage:
    module, name = where.split(":")
    stage: Stage = getattr(import_module(module), name)
    return stage


def sharded() -> dict[str, str]:
    """Kinds whose artifacts are one a shard, the shard last in their names, and the fingerprint that stands before it.

    That is what it is called; empty where there is none.
    """
    return _sharded(tuple(STAGES))


@cache
def _sharded(kinds: tuple[str, ...]) -> dict[str, str]:
    parts = {kind: load_stage(kind).parts for kind in kinds}
    before = {kind: names[-2] if len(names) > 1 else "" for kind, names in parts.items() if names[-1:] == ("shard",)}
    return {kind: name.removeprefix("#") if name.startswith("#") else "" for kind, name in before.items()}
