"""The `scores` of captions: made, a part at a time, by the training sets whose filters look them up."""

from functools import partial

from caploom.config.factory import Factory
from caploom.images.moves import Moves
from caploom.stages.moves import moves_of
from caploom.stages.stage import Stage
from caploom.storage.records import SCORES as SCORES_SCHEMA
from caploom.training_set.filter_context import LoadScorer, Scorer
from caploom.training_set.filter_settings import ScoredStep
from caploom.training_set.scorer_identity import CODE_VERSION
from caploom.training_set.scores import KIND


def scorer_of(factory: Factory) -> LoadScorer:
    """What loads the open_clip model of a filter that scores a factory's images.

    It raises `TrainingError` or `StoreError` when the model cannot be had.
    """
    return partial(_load_clip_scorer, moves=moves_of(factory))


def _load_clip_scorer(step: ScoredStep, moves: Moves) -> Scorer:
    from caploom.evaluation.clip_scorer import ClipScorer  # torch: only where something is scored

    return ClipScorer(step, moves)


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
