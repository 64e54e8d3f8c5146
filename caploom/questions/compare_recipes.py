"""Finds the ranks of two measured recipes and compares them."""

from dataclasses import dataclass

from caploom.config.factory import Factory
from caploom.errors import EvaluationError
from caploom.evaluation.compare import Comparison, paired_comparison
from caploom.evaluation.evaluate import RANKS_FILE
from caploom.evaluation.measure_set import RETRIEVAL
from caploom.stages.graph import Graph
from caploom.stages.stage import Ref
from caploom.storage.store import Artifact


@dataclass(frozen=True)
class ComparedSet:
    """Two recipes on one evaluation set, after the same stage of training (zero-shot, fine-tuned)."""

    evaluation_set: str
    stage: str
    comparisons: list[Comparison]


def compare_recipes(
    factory: Factory, first: str, second: str, *, evaluation_set: str | None = None
) -> list[ComparedSet]:
    """Compare two recipes on every stage and retrieval set that both were measured on, or on one set.

    Raises:
        ConfigError: if there is no such recipe.
        EvaluationError: if no set is common to both.
        MissingArtifactError: if one is not measured yet.

    Example:
        >>> [compared] = compare_recipes(factory, "sheared", "raw-only")
        >>> compared.evaluation_set, compared.comparisons[0].paired.difference
        ('held-out', 0.5)
    """
    graph = Graph(factory)
    one, other = (graph.require(Ref("retrieval_metrics", (graph.recipe(name).name,))) for name in (first, second))
    theirs = _retrieved(other)
    common = [each for each in _retrieved(one) if each in theirs and evaluation_set in (None, each[1])]
    if not common:
        which = "no retrieval set" if evaluation_set is None else f'not the retrieval set "{evaluation_set}"'
        known = {recipe: _names(metrics) for recipe, metrics in ((first, one), (second, other))}
        raise EvaluationError(
            f"{first} and {second} have {which} in common: "
            + "; ".join(f"{recipe} was measured on {names}" for recipe, names in known.items())
            + "."
        )
    return [
        ComparedSet(
            name,
            stage,
            paired_comparison(*(each.file(f"{stage}/{name}/{RANKS_FILE}") for each in (one, other))),
        )
        for stage, name in common
    ]


def _retrieved(metrics: Artifact) -> list[tuple[str, str]]:
    """The stages and retrieval sets that were measured, each once."""
    measurements = metrics.manifest.summary["measurements"]
    found = [(one["stage"], one["evaluation_set"]) for one in measurements if one["kind"] == RETRIEVAL]
    return list(dict.fromkeys(found))


def _names(metrics: Artifact) -> str:
    return ", ".join(f"{name} ({stage})" for stage, name in _retrieved(metrics)) or "none"
