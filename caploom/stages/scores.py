"""The `scores` of captions: made, a part at a time, by the training sets whose filters look them up."""

from caploom.stages.stage import Stage
from caploom.storage.records import SCORES as SCORES_SCHEMA
from caploom.training_set.filter_context import Scorer
from caploom.training_set.filter_settings import ScoredStep
from caploom.training_set.scorer_identity import CODE_VERSION
from caploom.training_set.scores import KIND


def load_clip_scorer(step: ScoredStep) -> Scorer:
    """The open_clip model of a filter that scores; raises `TrainingError` or `StoreError` when it cannot be had."""
    from caploom.evaluation.clip_scorer import ClipScorer  # torch: only where something is scored

    return ClipScorer(step)


SCORES = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("part",),
    keys=lambda graph: [],
    name_parts=("scorer",),
    hidden=True,
    unit="captions",
    cost=None,
    tables={"scores.parquet": SCORES_SCHEMA},
    reads_images=True,
    outcome_in_plan=True,
    remake="caploom.reproduce.remake:score",
)
