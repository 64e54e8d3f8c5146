"""How a recipe did on each version of its data: one training set after the other, all else the same.

New images make a new training set, and with it a new checkpoint and a new measurement; the old ones stay in the store.
What was measured with other settings (another shear, trainer, evaluation set, ...) is no version of the data: such
measurements are counted and not shown.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.errors import StoreError
from caploom.evaluation.metrics import DIRECTIONS
from caploom.questions.results.arms import ranks_of
from caploom.questions.results.measured_settings import (
    Chain,
    Settings,
    chain_of,
    present_settings,
    training_set_settings,
)
from caploom.questions.results.paired import Difference, Hits, difference, hits_of
from caploom.questions.results.results import measured_labels
from caploom.stages.graph import Graph, graph_of
from caploom.storage.store import Artifact
from caploom.storage.view import StoreView

MOST_VERSIONS = 10
"""Of a recipe, the newest that are looked at."""


@dataclass(frozen=True)
class Recalls:
    """Recall@1 on one version, in one measurement: shares from 0 to 1, means over the seeds.

    `change` is `mean` minus that of the version before, over the seeds that both have. Without it, `why_not` says why
    there is none; it is empty for the first version.
    """

    image_to_text: float
    text_to_image: float
    mean: float
    change: Difference | None = None
    why_not: str = ""


@dataclass(frozen=True)
class NewData:
    """What a training set has that the one before had not, in shards: new ones, ones read anew, ones left out."""

    added: int
    made_again: int
    gone: int


@dataclass(frozen=True)
class DataVersion:
    """A training set and what was measured of it.

    Attributes:
        training_set: the artifact.
        metrics: its measurements by their seed, in the seeds' order.
        measured: when the last of them was made, ISO 8601.
        shards: of raw pairs that it was made from.
        images: that have a caption in it.
        captions: that training draws from.
        samples_seen: by one seed's training, all stages together.
        recalls: by label (the evaluation set; the stage and scoring where they are not the plain ones).
        new_data: against the version before; None for the first.
    """

    training_set: Artifact
    metrics: Mapping[int, Artifact]
    measured: str
    shards: int
    images: int
    captions: int
    samples_seen: int
    recalls: Mapping[str, Recalls]
    new_data: NewData | None = None

    def to_dict(self) -> dict[str, Any]:
        """As `caploom versions --json` and `results.json` have it."""
        return {
            "training_set": self.training_set.manifest.address,
            "metrics": {seed: each.manifest.address for seed, each in self.metrics.items()},
            **{name: getattr(self, name) for name in ("measured", "shards", "images", "captions", "samples_seen")},
            "recalls": {label: asdict(each) for label, each in self.recalls.items()},
            "new_data": asdict(self.new_data) if self.new_data is not None else None,
        }


@dataclass(frozen=True)
class LeftOut:
    """What is not shown of a recipe.

    Attributes:
        older: versions beyond the newest `MOST_VERSIONS`.
        other_settings: measurements that were made with other settings, or on other evaluation sets.
        gone: measurements of which something that they were made from is gone or damaged.
        unmeasured: training sets of these settings that have no measurement: never made, or deleted.
    """

    older: int = 0
    other_settings: int = 0
    gone: int = 0
    unmeasured: int = 0

    def to_dict(self) -> dict[str, int]:
        """Those that there are."""
        return {name: count for name, count in asdict(self).items() if count}


@dataclass(frozen=True)
class RecipeVersions:
    """A recipe's versions, oldest first; `recipe` is its name without a seed."""

    recipe: str
    versions: list[DataVersion]
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def labels(self) -> list[str]:
        """What was measured, over all versions."""
        return list(dict.fromkeys(label for each in self.versions for label in each.recalls))

    def numbered(self) -> list[tuple[int, DataVersion]]:
        """The versions with their numbers, of which 1 is the oldest there is."""
        return list(enumerate(self.versions, start=1 + self.left_out.older))

    def of(self, label: str) -> list[tuple[int, DataVersion]]:
        """Those of them that were measured as the label says."""
        return [(number, each) for number, each in self.numbered() if label in each.recalls]

    def to_dict(self) -> dict[str, Any]:
        """As `caploom versions --json` has it."""
        return {
            "recipe": self.recipe,
            "versions": [{"version": number, **each.to_dict()} for number, each in self.numbered()],
            "left_out": self.left_out.to_dict(),
        }


def data_versions(factory: Factory | Graph, recipe: str, *, like: Artifact | None = None) -> RecipeVersions:
    """The versions of a recipe's data that it was measured on with its present settings, the oldest first.

    Args:
        factory: with its store.
        recipe: a recipe's name; all its seeds are taken together.
        like: a measurement to whose settings and evaluation sets the others are compared. Left out, the settings are
            those of the YAML, and the evaluation sets those of the newest measurement.

    Raises:
        ConfigError: if there is no such recipe.
    """
    graph = graph_of(factory)
    base = graph.recipe(recipe).base
    seeds = [each for each in graph.recipes.values() if each.base == base]
    view = StoreView(graph.store, tolerant=True)
    found, gone = _chains(view, seeds)
    example = chain_of(like, view.read) if like is not None else None
    wanted = example.made_with if example is not None else present_settings(graph, seeds[0])
    numbers = {each.seed for each in seeds}
    same = [each for each in found if each.made_with == wanted and each.seed in numbers]
    on = example or max(same, key=_measured, default=None)
    same = [each for each in same if on is not None and each.measured_on == on.measured_on]
    groups: dict[str, dict[int, Chain]] = {}
    for each in same:
        groups.setdefault(each.training_set.manifest.address, {})[each.seed] = each
    ordered = sorted(groups.values(), key=_age)
    left_out = LeftOut(
        older=max(0, len(ordered) - MOST_VERSIONS),
        other_settings=len(found) - len(same),
        gone=gone,
        unmeasured=_unmeasured(view, base, wanted, measured=[each.training_set for each in found]),
    )
    return RecipeVersions(base, list(_compared(ordered[-MOST_VERSIONS:])), left_out)


def _chains(view: StoreView, seeds: Sequence[Recipe]) -> tuple[list[Chain], int]:
    """Every measurement of a recipe's seeds, and how many more there are that cannot be followed."""
    found: list[Chain] = []
    gone = 0
    for recipe in seeds:
        for address in view.addresses("retrieval_metrics", recipe.name):
            metrics = view.read(address)
            chain = chain_of(metrics, view.read) if metrics is not None else None
            if chain is None:
                gone += 1
            else:
                found.append(chain)
    return found, gone


def _unmeasured(view: StoreView, base: str, wanted: Settings, *, measured: Iterable[Artifact]) -> int:
    known = {each.manifest.address for each in measured}
    sets = [view.read(address) for address in view.addresses("training_set", base) if address not in known]
    made_with = [training_set_settings(each, view.read) for each in sets if each is not None]
    return sum(each is not None and each.items() <= wanted.items() for each in made_with)


def _measured(chain: Chain) -> tuple[str, int, str]:
    """When it was measured; within one second, the file's own time tells."""
    written = chain.metrics.manifest_path.stat().st_mtime_ns
    return chain.metrics.manifest.started, written, chain.metrics.manifest.address


def _age(seeds: Mapping[int, Chain]) -> tuple[Any, ...]:
    """When the training set was made; of two within the same second, the larger is the newer."""
    training_set = next(iter(seeds.values())).training_set.manifest
    measured = min(_measured(each) for each in seeds.values())
    return training_set.started, measured[0], len(training_set.inputs), training_set.summary["images"], measured[2]


def _compared(groups: Sequence[Mapping[int, Chain]]) -> Iterator[DataVersion]:
    before: Mapping[int, Chain] | None = None
    for seeds in groups:
        first = next(iter(seeds.values()))
        pairs, summary = _pairs(first), first.training_set.manifest.summary
        yield DataVersion(
            training_set=first.training_set,
            metrics={seed: seeds[seed].metrics for seed in sorted(seeds)},
            measured=max(_measured(each) for each in seeds.values())[0],
            shards=len(pairs),
            images=summary["images"],
            captions=summary["captions"],
            samples_seen=sum(each.manifest.summary["samples_seen"] for each in first.checkpoints),
            recalls=_recalls(seeds, before),
            new_data=_new_data(pairs, _pairs(next(iter(before.values())))) if before is not None else None,
        )
        before = seeds


def _pairs(chain: Chain) -> dict[str, str]:
    """The addresses of a training set's raw pairs by source and shard."""
    addresses = (record.address for record in chain.training_set.manifest.inputs)
    return {each.rpartition("/")[0]: each for each in addresses if each.startswith("raw_pairs/")}


def _new_data(now: Mapping[str, str], before: Mapping[str, str]) -> NewData:
    again = sum(before[shard] != now[shard] for shard in now.keys() & before.keys())
    return NewData(len(now.keys() - before.keys()), again, len(before.keys() - now.keys()))


def _recalls(seeds: Mapping[int, Chain], before: Mapping[int, Chain] | None) -> dict[str, Recalls]:
    found: dict[str, Recalls] = {}
    measured = [measured_labels(each.metrics) for each in seeds.values()]
    for label in dict.fromkeys(label for each in measured for label in each):
        figures = [each[label] for each in measured if label in each]
        to_text, to_image = (fmean(each[direction]["recall@1"] for each in figures) for direction in DIRECTIONS)
        change, why_not = _change(seeds, before, label) if before is not None else (None, "")
        found[label] = Recalls(to_text, to_image, fmean(each["mean_recall@1"] for each in figures), change, why_not)
    return found


def _change(now: Mapping[int, Chain], before: Mapping[int, Chain], label: str) -> tuple[Difference | None, str]:
    common = sorted(now.keys() & before.keys())
    if not common:
        return None, "no seed in common"
    try:
        sides = [_hits([seeds[seed].metrics for seed in common], label) for seeds in (now, before)]
    except StoreError:
        return None, "ranks are gone"
    if sides[0] is None or sides[1] is None:
        return None, "not measured before"
    found = difference(sides[0], sides[1])
    return found, "" if found is not None else "other queries"


def _hits(metrics: Sequence[Artifact], label: str) -> Hits | None:
    """The hits of single queries; raises `StoreError` when their file is gone or damaged."""
    measured = [measured_labels(each) for each in metrics]
    if not all(label in each for each in measured):
        return None
    return hits_of([ranks_of(each, found[label]) for each, found in zip(metrics, measured, strict=True)])
