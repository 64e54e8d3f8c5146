"""What a run of the present YAML would still make, and how long that takes, before anything runs.

What is to do is found as a run finds it: by the plans of the graph against the store. Seconds come from what was
measured in this store; where nothing like it was, they are not known, and no number is made up.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from caploom.captioning.ledger import KIND as CAPTIONS
from caploom.config.factory import Factory
from caploom.questions.cost.items import CostItem
from caploom.questions.cost.rates import rate_of
from caploom.readers.picture_book import PictureBookReader
from caploom.stages.graph import Graph
from caploom.stages.registry import stages
from caploom.stages.shards import is_of_inbox, listings, new_rows, next_number
from caploom.stages.stage import Cost, Key, Ref, Stage


@dataclass(frozen=True)
class CostPlan:
    """What is to do, stage by stage.

    Attributes:
        factory: the factory's name.
        recipes: how many, whatever their seeds.
        trainings: how many recipes with their seeds.
        items: the work, upstream first; what is made already stands in them too.
        damaged: manifests that could not be read, a sentence each; what they describe counts as missing.
    """

    factory: str
    recipes: int
    trainings: int
    items: tuple[CostItem, ...]
    damaged: tuple[str, ...] = ()

    def of(self, stage: str) -> list[CostItem]:
        """The items of a stage."""
        return [item for item in self.items if item.stage == stage]

    @property
    def captions(self) -> int:
        """Images to caption, over all captioners."""
        return sum(item.units for item in self.of(CAPTIONS))

    @property
    def captions_unshared(self) -> int:
        """What it would be if each recipe had its own captions made."""
        return sum(item.units * max(1, item.shared_by) for item in self.of(CAPTIONS))

    @property
    def seconds(self) -> float:
        """Of all that has a measured rate; `not_measured` names the rest."""
        return sum(item.seconds or 0.0 for item in self.items)

    @property
    def not_measured(self) -> list[CostItem]:
        """What is to do and takes nobody knows how long."""
        return [item for item in self.items if item.to_do and item.seconds is None]

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to make."""
        return not any(item.to_do for item in self.items)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; seconds are null where not everything was measured before."""
        return {
            "factory": self.factory,
            "recipes": self.recipes,
            "trainings": self.trainings,
            "nothing_to_do": self.is_done,
            "captions_to_make": self.captions,
            "captions_if_made_for_each_recipe": self.captions_unshared,
            "seconds": None if self.not_measured else round(self.seconds, 1),
            "seconds_of_what_is_measured": round(self.seconds, 1),
            "not_measured": [f"{item.stage}: {item.name}" for item in self.not_measured],
            "items": [item.to_dict() for item in self.items],
            "damaged": list(self.damaged),
        }


def plan_cost(factory: Factory) -> CostPlan:
    """What a run of the present YAML would still make; nothing is made, drawn or loaded for it.

    Raises `SourceError` when the source cannot be read: it is read through, to count the rows that no shard holds yet.

    Example:
        >>> plan_cost(Factory.from_yaml(Path("my.yaml"))).captions
        0
    """
    graph = Graph(factory, tolerant=True)
    graph.expected = _expected_shards(graph)
    items = tuple(line.item(graph) for line in _lines(graph))
    recipes = graph.recipes.values()
    return CostPlan(graph.config.name, len({each.base for each in recipes}), len(recipes), items, graph.view.damaged)


def _expected_shards(graph: Graph) -> dict[str, int]:
    """The shards that the source's new rows will be cut into, with their rows."""
    cut = [listing for shard, listing in listings(graph).items() if not is_of_inbox(shard)]
    rows = _uncut_rows(graph.factory, sum(listing.manifest.summary["rows"] for listing in cut))
    size, first = graph.config.shard_size, next_number(cut)
    starts = range(0, rows, size)
    return {f"shard-{number:05d}": min(size, rows - start) for number, start in enumerate(starts, start=first)}


def _uncut_rows(factory: Factory, in_shards: int) -> int:
    """Rows of the source that no shard holds; pictures that are not drawn yet are not drawn to be counted."""
    reader = factory.config.pairs
    if isinstance(reader, PictureBookReader) and not reader.is_drawn:
        return max(0, reader.scenes - in_shards)
    return sum(1 for _ in new_rows(factory))


@dataclass(frozen=True)
class _Line:
    """Artifacts of a kind whose work is alike, and counted together."""

    stage: Stage
    cost: Cost
    name: str
    keys: list[Key]

    def item(self, graph: Graph) -> CostItem:
        """What of them is to do, and what it costs."""
        cost = self.cost
        waiting = [key for key in self.keys if graph.find(Ref(self.stage.kind, key)) is None]
        units, exact = cost.units(graph, waiting)
        title = _title(self.stage.kind, cost)
        return CostItem(
            stage=title,
            verb=cost.verb or title,
            name=self.name,
            to_do=len(waiting),
            done=len(self.keys) - len(waiting),
            units=units,
            unit=cost.unit,
            exact=exact,
            rate=rate_of(graph, self.stage, cost, waiting[0]) if waiting else None,
            shared_by=cost.shared_by(graph, self.keys),
            steps=sum(cost.steps(graph, key) for key in waiting),
        )


def _lines(graph: Graph) -> Iterator[_Line]:
    """All of the work, upstream first."""
    titles: dict[str, list[tuple[Stage, Cost]]] = {}
    for stage in stages():
        if stage.cost is not None:
            titles.setdefault(_title(stage.kind, stage.cost), []).append((stage, stage.cost))
    for counted in titles.values():
        yield from _lines_of(graph, counted)


def _lines_of(graph: Graph, counted: Sequence[tuple[Stage, Cost]]) -> Iterable[_Line]:
    """The lines of the kinds of one title: these take turns, recipe by recipe."""
    lines: dict[tuple[object, ...], _Line] = {}
    keys = {stage.kind: _different(graph, stage) for stage, _ in counted}
    for key in dict.fromkeys(chain.from_iterable(keys.values())):
        for stage, cost in counted:
            if key in keys[stage.kind]:
                name, apart = cost.line(graph, key), cost.split(graph, key)
                line = lines.setdefault((stage.kind, name, apart), _Line(stage, cost, name, []))
                line.keys.append(key)
    return lines.values()


def _title(kind: str, cost: Cost) -> str:
    return cost.title or kind


def _different(graph: Graph, stage: Stage) -> dict[Key, None]:
    """The keys of a kind, one an artifact: recipes that differ only in their seed share a training set."""
    names: dict[Key, Key] = {}
    for key in graph.keys(stage.kind):
        names.setdefault(stage.name(graph, key), key)
    return dict.fromkeys(names.values())
