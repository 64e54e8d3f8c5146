"""What decided a measurement besides the data: two measurements with equal settings may differ by their images alone.

A manifest names its inputs, so that the settings of an old measurement are read from the manifests behind it; those of
the present YAML come from the stages' own plans. Caploom's code is among them: a stage whose code changed makes other
results of the same images.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from caploom.config.recipes import Recipe
from caploom.stages.graph import Graph
from caploom.stages.registry import load_stage
from caploom.stages.stage import Ref, Stage
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact

Settings = dict[str, Any]
"""By a stage's kind, its code version and configuration, as JSON has them."""

Read = Callable[[str], Artifact | None]
"""The artifact at an address; None where it is gone or cannot be read."""


@dataclass(frozen=True)
class Chain:
    """A measurement and the artifacts that it came from.

    Attributes:
        metrics: the measurement.
        checkpoints: of its stages of training, in their order.
        training_set: what the first of them was trained on.
        made_with: its settings.
        measured_on: by kind and name, the contents of its evaluation sets, and of a target set.
    """

    metrics: Artifact
    checkpoints: tuple[Artifact, ...]
    training_set: Artifact
    made_with: Settings
    measured_on: dict[str, str]

    @property
    def seed(self) -> int:
        """Of the training."""
        return int(self.checkpoints[0].manifest.configuration["seed"])


def chain_of(metrics: Artifact, read: Read) -> Chain | None:
    """What a measurement came from; None where something of it is gone."""
    inputs = metrics.manifest.inputs
    checkpoints = [read(each.address) for each in inputs if each.kind.endswith("checkpoint")]
    found = tuple(each for each in checkpoints if each is not None)
    if not found or len(found) < len(checkpoints):
        return None
    training_set = read(found[0].manifest.inputs[0].address)
    settings = training_set_settings(training_set, read) if training_set is not None else None
    if training_set is None or settings is None:
        return None
    stages = (metrics.manifest, *(each.manifest for each in found))
    contents = [record for each in stages for record in each.inputs if load_stage(record.kind).is_content]
    return Chain(
        metrics,
        found,
        training_set,
        {**settings, **{each.kind: _stage(each) for each in stages}},
        {record.address.rpartition("/")[0]: record.data_version for record in contents},
    )


def training_set_settings(training_set: Artifact, read: Read) -> Settings | None:
    """What decided a training set besides the data; None where its sheared captions are gone."""
    first = next((each for each in training_set.manifest.inputs if each.kind == "sheared_captions"), None)
    sheared = read(first.address) if first is not None else None
    if sheared is None:
        return None
    settings: Settings = {each.kind: _stage(each) for each in (training_set.manifest, sheared.manifest)}
    # All tables of a captioner are sheared alike: one of them says how.
    tables = {each.address.split("/")[1]: each.address for each in sheared.manifest.inputs}
    for captioner, address in sorted(tables.items()):
        table = read(address)
        if table is None:
            return None
        captions = table.manifest.inputs[0].address.split("/")
        settings[f"captions/{captioner}"] = [captions[2], *_stage(table.manifest)]
    return settings


def present_settings(graph: Graph, recipe: Recipe) -> Settings:
    """The settings of a recipe as the YAML is now; nothing is made."""
    chain = _chain_of(graph, Ref("retrieval_metrics", (recipe.name,)))
    settings: Settings = {ref.kind: _present(graph, ref) for ref in chain}
    for captioner in recipe.captioners:
        table = _present(graph, Ref("sheared", (captioner, recipe.shear, "")))
        settings[f"captions/{captioner}"] = [graph.fingerprint(captioner), *table]
    return settings


def _chain_of(graph: Graph, ref: Ref) -> list[Ref]:
    """An artifact of a recipe and those of the recipe that it is made from."""
    return [ref, *(each for one in graph.inputs(ref) if one.key == ref.key for each in _chain_of(graph, one))]


def _present(graph: Graph, ref: Ref) -> list[Any]:
    stage = graph.stage(ref.kind)
    return _told(stage, stage.code_version, stage.settings(graph, ref.key))


def _stage(made: Manifest) -> list[Any]:
    return _told(load_stage(made.kind), made.code_version, made.configuration)


def _told(stage: Stage, code_version: str, configuration: Mapping[str, Any]) -> list[Any]:
    """What decided a result: neither what the data told, nor the seed, as a recipe's seeds are taken together."""
    passed_over = stage.fact_keys | stage.ignored_settings
    return [code_version, {key: value for key, value in configuration.items() if key not in passed_over}]
