"""Each recipe's latest measurement: on the present data or, where that has not been measured yet, on earlier data.

A recipe whose data has grown is retrained by policy, perhaps weeks later; until then its earlier result stands.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.questions.results.data_versions import data_versions
from caploom.questions.results.results import ArmResult, finished_arms
from caploom.stages.evaluation_sets import evaluation_ref
from caploom.stages.graph import Graph, graph_of


@dataclass(frozen=True)
class LatestResults:
    """The recipes' latest measurements.

    Attributes:
        arms: the measured recipes, in the order of the YAML.
        waiting: the recipes that were not measured with their present settings, on any data.
        on_earlier_data: of the arms that are not measured on the present data, how many images each was trained on.
    """

    arms: list[ArmResult]
    waiting: list[Recipe]
    on_earlier_data: Mapping[str, int] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """Notes on the recipes that the tables do not show as they are now; empty when there are none."""
        sentences = []
        if self.on_earlier_data:
            images = (f"{name} ({count:,} images)" for name, count in self.on_earlier_data.items())
            sentences.append("Measured on earlier data, and not on the present one yet: " + ", ".join(images) + ".")
        if self.waiting:
            sentences.append("Not measured yet: " + ", ".join(recipe.name for recipe in self.waiting) + ".")
        return sentences


def latest_results(factory: Factory | Graph) -> LatestResults:
    """The newest measurements with the present settings, on the present evaluation sets.

    A recipe's seeds are averaged, so earlier data counts only where no seed was measured on the present data.
    """
    graph = graph_of(factory)
    done, waiting = finished_arms(graph)
    present = {arm.recipe.base for arm in done}
    found = {arm.recipe.name: arm for arm in done}
    earlier: dict[str, int] = {}
    for base in dict.fromkeys(recipe.base for recipe in waiting if recipe.base not in present):
        for arm, images in _on_earlier_data(graph, [recipe for recipe in waiting if recipe.base == base]):
            found[arm.recipe.name], earlier[arm.recipe.name] = arm, images
    order = list(graph.recipes)
    return LatestResults(
        arms=[found[name] for name in order if name in found],
        waiting=[recipe for recipe in waiting if recipe.name not in found],
        on_earlier_data=earlier,
    )


def _on_earlier_data(graph: Graph, seeds: Iterable[Recipe]) -> Iterator[tuple[ArmResult, int]]:
    """The seeds of a recipe in the newest of its versions, and the images of that."""
    recipes = {recipe.seed: recipe for recipe in seeds}
    first = next(iter(recipes.values()))
    versions = data_versions(graph, first.name).versions
    if not versions:
        return
    sets = [graph.find(evaluation_ref(graph.config, name)) for name in first.evaluation_sets]
    asked = [each.as_input() if each is not None else None for each in sets]  # a set that is not made measured nothing
    for seed, metrics in versions[-1].metrics.items():
        if seed in recipes and all(record in metrics.manifest.inputs for record in asked):
            yield ArmResult(recipes[seed], metrics), versions[-1].images
