"""What a factory has made up to where its recipes end, for those that measure nothing: captions, training sets."""

from collections.abc import Sequence
from dataclasses import dataclass

from caploom.config.factory import Factory
from caploom.questions.results.tables import Table
from caploom.stages.graph import Graph, graph_of
from caploom.stages.stage import Ref


@dataclass(frozen=True)
class CaptionerOutput:
    """What a captioner has said of the present shards: images captioned, images failed, shards still to caption."""

    captioner: str
    captions: int
    failed: int
    shards_waiting: int


@dataclass(frozen=True)
class RecipeOutput:
    """A recipe's training set, None while it is not made, and whether its checkpoint is there, if it has a trainer."""

    recipe: str
    captions: int | None
    images: int | None
    trained: bool | None


@dataclass(frozen=True)
class Made:
    """What is there of every captioner and recipe of the YAML."""

    captioners: Sequence[CaptionerOutput]
    recipes: Sequence[RecipeOutput]

    def tables(self) -> list[Table]:
        """Captioners and recipes, for people; no table of what the YAML has none of."""
        said = [["captioner", "captions", "failed"]]
        said += [[each.captioner, f"{each.captions:,}", f"{each.failed:,}"] for each in self.captioners]
        merged = [["recipe", "images", "captions", "trained"]]
        for each in self.recipes:
            trained = "-" if each.trained is None else "yes" if each.trained else "not yet"
            merged.append([each.recipe, _number(each.images), _number(each.captions), trained])
        return [table for table in (said, merged) if len(table) > 1]


def made_so_far(factory: Factory | Graph) -> Made:
    """The present artifacts of every captioner and recipe; nothing is made.

    Example:
        >>> [(each.captioner, each.captions) for each in made_so_far(factory).captioners]
        [('colours', 15)]
    """
    graph = graph_of(factory)
    return Made(
        [_of_captioner(graph, captioner) for captioner in graph.config.captioners],
        [_of_recipe(graph, name) for name in graph.recipes],
    )


def _of_captioner(graph: Graph, captioner: str) -> CaptionerOutput:
    refs = [Ref("captions", (captioner, shard)) for shard in graph.shards]
    found = graph.existing(refs)
    counts = [each.manifest.rows for each in found if each.manifest.rows is not None]
    failed = sum(each.rows_failed for each in counts)
    return CaptionerOutput(captioner, sum(each.rows_out for each in counts), failed, len(refs) - len(found))


def _of_recipe(graph: Graph, name: str) -> RecipeOutput:
    training_set = graph.find(Ref("training_set", (name,)))
    summary = training_set.manifest.summary if training_set is not None else {}
    trained = graph.find(Ref("checkpoint", (name,))) is not None if graph.recipe(name).is_trained else None
    return RecipeOutput(name, summary.get("captions"), summary.get("images"), trained)


def _number(value: int | None) -> str:
    return "not yet" if value is None else f"{value:,}"
