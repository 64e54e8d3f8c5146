"""The declaration of a step: everything that asks about the graph reads it from here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from caploom.captioning.backend import Backend, load_backend
from caploom.captioning.settings import CaptionerSettings
from caploom.common.progress import Progress, StageBar
from caploom.config.factory import Factory
from caploom.config.factory_config import FactoryConfig
from caploom.config.recipes import Recipe
from caploom.errors import CaploomError
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact, Draft, Plan, Store
from caploom.training.job import TrainingEvent
from caploom.training.launch import Launch, launch_training

Graph: TypeAlias = Any
"""A `caploom.stages.graph.Graph`, whose module needs this one."""

Key = tuple[str, ...]
Configuration = dict[str, Any]
Label = tuple[str, str]
"""An asset and a partition, whatever the version: ("captions/llava", "shard-00003")."""

BEHIND = "the content behind its settings (the files of a model or of captions, or Caploom's backend)"
"""A key of a `shown` configuration: what a fingerprint covers beside the settings. Reported if no setting changed."""


class Ref(NamedTuple):
    """An artifact of a factory, whichever version of it: its kind, and which of that kind.

    The key has one value for each of its stage's `axes`: a shard, a captioner, a recipe, a set's name.
    """

    kind: str
    key: Key = ()

    def __str__(self) -> str:
        return "/".join((self.kind, *self.key))


@dataclass(frozen=True)
class Tools:
    """What making needs besides the graph.

    Attributes:
        progress: called with the progress of the requested artifact.
        bar: progress bar of a step that has several parts.
        load: loads a captioner when something has to be generated.
        launch: starts a training.
        report: called with the events of a training.
    """

    progress: Progress | None = None
    bar: StageBar | None = None
    load: Callable[[CaptionerSettings, Store], Backend] = load_backend
    launch: Launch = launch_training
    report: Callable[[TrainingEvent], None] = lambda event: None


@dataclass(frozen=True)
class Making:
    """An artifact in the making: its plan, and the graph that has its inputs."""

    graph: Graph
    factory: Factory
    ref: Ref
    plan: Plan
    tools: Tools

    @property
    def config(self) -> FactoryConfig:
        """The factory's configuration."""
        return self.factory.config

    @property
    def store(self) -> Store:
        """Its store."""
        return self.factory.store

    @property
    def recipe(self) -> Recipe:
        """The recipe, of an artifact whose key is a recipe's name."""
        recipe: Recipe = self.graph.recipe(self.ref.key[0])
        return recipe

    def inputs(self, *kinds: str) -> list[Artifact]:
        """The artifacts that it is made from, in the plan's order; only those of `kinds`, if any are given."""
        refs = self.graph.stage(self.ref.kind).inputs(self.graph, self.ref.key)
        return [self.graph.require(each, by=self.ref) for each in refs if not kinds or each.kind in kinds]


@dataclass(frozen=True)
class Measured:
    """How long a finished artifact took: `units` in `seconds`, and `start` seconds before and after them."""

    units: float
    seconds: float
    start: float = 0.0


@dataclass(frozen=True)
class Alike:
    """Finished artifacts whose speed predicts that of new ones.

    Attributes:
        words: what was measured: "captions of this captioner".
        below: the first parts of their names.
        which: selects the artifacts that count.
    """

    words: str
    below: tuple[str, ...] = ()
    which: Callable[[Graph, Manifest], bool] = lambda graph, manifest: True


def by_rows(graph: Graph, manifest: Manifest) -> Measured | None:
    """The speed of work whose units are the rows that come in."""
    return Measured(manifest.rows.rows_in, manifest.seconds) if manifest.rows is not None else None


@dataclass(frozen=True)
class Cost:
    """The amount of work that a kind's artifacts are, and how long such work took before.

    Attributes:
        unit: what is counted.
        line: line of a cost plan that an artifact belongs to.
        split: keeps lines of the same name apart.
        units: number of units that a line's missing artifacts are, and whether it is exact; otherwise it is a maximum.
        shared_by: number of recipes that use one artifact of a line (the largest, where they differ).
        measured: speed according to a manifest; None where it says nothing. By default, one artifact per its seconds.
        alike: which artifacts' speed to use for a missing one, best first.
        steps: optimizer steps of an artifact.
        also: other kinds whose speed counts.
        title: kind under which it is counted; by default its own.
        verb: what a run does to make one, as a word for people; by default the title.
    """

    unit: str = "artifacts"
    line: Callable[[Graph, Key], str] = lambda graph, key: "all"
    split: Callable[[Graph, Key], object] = lambda graph, key: None
    units: Callable[[Graph, Sequence[Key]], tuple[int, bool]] = lambda graph, keys: (len(keys), True)
    shared_by: Callable[[Graph, Sequence[Key]], int] = lambda graph, keys: 0
    measured: Callable[[Graph, Manifest], Measured | None] = lambda graph, manifest: Measured(1, manifest.seconds)
    alike: Callable[[Graph, Key], Sequence[Alike]] = lambda graph, key: (Alike("artifacts of this kind"),)
    steps: Callable[[Graph, Key], int] = lambda graph, key: 0
    also: tuple[str, ...] = ()
    title: str | None = None
    verb: str | None = None


@dataclass(frozen=True)
class Piece:
    """The part of the YAML whose edits make an artifact stale in Dagster's UI.

    Attributes:
        name: its name in the UI.
        says: its value; by default the step's `settings`.
    """

    name: str
    says: Callable[[Graph, Key], Any] | None = None


@dataclass(frozen=True)
class Checks:
    """Invariants of a kind's artifacts: names as in `stages.checks.DESCRIPTIONS`, and the function that counts."""

    names: tuple[str, ...] = ()
    run: Callable[[Graph, Artifact], list[Any]] = lambda graph, artifact: []


def keys_of(recipes: Callable[[Recipe], bool]) -> Callable[[Graph], list[Key]]:
    """The keys of a step of these recipes: their names."""
    return lambda graph: [(name,) for name, recipe in graph.recipes.items() if recipes(recipe)]


def _not_built(making: Making, draft: Draft) -> None:
    raise NotImplementedError(f"{making.ref}: artifacts of this kind are not built from a plan.")


@dataclass(frozen=True)
class Stage:
    """One step of the factory, and thereby one kind of artifact. All functions are pure except those that make.

    Identity:
        kind: first part of the artifacts' addresses.
        code_version: raised when the same inputs give a different result.
        axes: meaning of each value of a key: shard, captioner, recipe, ...
        keys: the artifacts that the factory has, made or not.
        recipes: the recipes that it is a step of; where a factory has none of them, it lacks the step.
        name: part of the address between kind and fingerprint; by default the key.
        name_parts: meaning of each part of the name, by default the axes; fingerprints begin with "#".
        tell_key: key of a finished artifact, where its address without fingerprints is not enough.
    Plan:
        settings: part of the fingerprint that the YAML decides.
        facts: part of the fingerprint that data decides beside the inputs. Raises `MissingArtifactError` when something
            that it reads is not there.
        fact_keys: keys of `facts`; when an artifact is rebuilt, their recorded values are used.
        inputs: artifacts that one is made from, in the order in which they enter the fingerprint.
        asks: artifacts that `facts` reads and that are no inputs.
        upstream: kinds of `inputs` and `asks`, whatever the key.
        look: finds an artifact whose address no plan can tell, because its content is part of it.
        outcome_in_plan: whether the content is part of the plan.
        partial: whether it is made of whichever inputs are there.
    Making:
        build: writes the files of an artifact into a draft.
        make: makes an artifact that is not built from a plan.
        on_demand: whether the steps that need it make it themselves, instead of asking the user to.
        prepare: runs before an artifact is planned in order to be made: draws pictures.
        around: context in which an artifact is built: a lock, a claim.
        explain: rewords the error of an input.
        missing: sentence about an artifact that is not there; by default it names the slot to materialize.
        remake: `module:function` (given a `Work` of `reproduce`) that rebuilds one where `make` alone is not enough.
        reads_images: whether the images' bytes decide the result, and not only their identities.
        source: for what is read from outside the store, the present settings of its reader.
    For people:
        hidden: whether it is only known as a part of what is made from it.
        slot: asset and partition under which people know an artifact; by default the kind, and the key as partition.
        label: name of a hidden artifact; or prefix of its causes where several artifacts share a slot.
        absent: sentence for `status` when a hidden artifact is not there.
        shown: configuration as the YAML has it, from that of a manifest or plan.
        passed_on: pattern that names a hidden input's `key` in its user's configuration.
        words: configuration in a few words.
        unit: what progress counts.
        cost: amount of work, for cost plans; None where it is not counted.
        checks: what must always hold.
        piece: part of the YAML that the Dagster asset follows; by default `settings`.
        ignored_settings: keys of `settings` that change no figure: the seed, additional files for people.
        is_content: whether it is data that was trained or measured on, as opposed to a way of doing so.
    Tables:
        tables: schemas by file name (a pattern).
        texts: SQL that selects image_id, source and said from the first table (`read_parquet(?)`), or from the inputs'
            tables where it has none; empty for an artifact without texts.
        images: table with the columns image_id and path.
    """

    kind: str
    code_version: str
    axes: tuple[str, ...]
    keys: Callable[[Graph], Iterable[Key]]
    recipes: Callable[[Recipe], bool] = lambda recipe: True
    settings: Callable[[Graph, Key], Configuration] = lambda graph, key: {}
    facts: Callable[[Graph, Key], Configuration] = lambda graph, key: {}
    build: Callable[[Making, Draft], None] = _not_built
    upstream: tuple[str, ...] = ()
    inputs: Callable[[Graph, Key], Iterable[Ref]] = lambda graph, key: ()
    asks: Callable[[Graph, Key], Iterable[Ref]] = lambda graph, key: ()
    name: Callable[[Graph, Key], Key] = lambda graph, key: key
    name_parts: tuple[str, ...] | None = None
    tell_key: Callable[["Graph", Manifest], Key] | None = None
    on_demand: bool = False
    prepare: Callable[[Graph, Key], None] = lambda graph, key: None
    look: Callable[[Graph, Key], Artifact | None] | None = None
    make: Callable[[Graph, Key, Tools], Artifact] | None = None
    around: Callable[[Making], AbstractContextManager[None]] = lambda making: nullcontext()
    explain: Callable[[Key, CaploomError], CaploomError] = lambda key, error: error
    missing: Callable[[Graph, Key], str] | None = None
    hidden: bool = False
    slot: Callable[[Key], tuple[str, str | None]] | None = None
    label: str = ""
    absent: str = ""
    shown: Callable[[Mapping[str, Any]], Configuration] = dict
    passed_on: str = "{key}"
    words: Callable[[Mapping[str, Any]], str] | None = None
    unit: str = "rows"
    cost: Cost | None = field(default_factory=Cost)
    tables: Mapping[str, pa.Schema] = field(default_factory=dict)
    texts: str = ""
    images: str | None = None
    reads_images: bool = False
    outcome_in_plan: bool = False
    source: Callable[[Graph, Key], Configuration] | None = None
    is_content: bool = False
    partial: bool = False
    fact_keys: frozenset[str] = frozenset()
    ignored_settings: frozenset[str] = frozenset()
    checks: Checks = field(default_factory=Checks)
    piece: Piece | None = None
    remake: str | None = None

    def is_in(self, config: FactoryConfig) -> bool:
        """Whether a factory has the step at all."""
        return any(map(self.recipes, config.expanded_recipes()))

    @property
    def parts(self) -> tuple[str, ...]:
        """What the parts of an address's name are."""
        return self.axes if self.name_parts is None else self.name_parts

    def slot_of(self, key: Key) -> tuple[str, str | None] | None:
        """The asset and partition that people know an artifact as; None where nobody does."""
        return None if self.hidden else self.asset_of(key)

    def asset_of(self, key: Key) -> tuple[str, str | None]:
        """The same, whether people know it or not."""
        if self.slot is not None:
            return self.slot(key)
        return "/".join((self.kind, *key[:-1])), (key[-1] or None) if key else None

    def label_of(self, name: Key) -> Label:
        """What an artifact is a version of, from the name in its address."""
        plain = tuple(value for value, part in zip(name, self.parts, strict=True) if not part.startswith("#"))
        slot = self.slot_of(plain)
        if slot is not None and not self.label:
            return slot[0], slot[1] or ""
        return self.kind if slot is not None else self.label or self.kind, plain[-1] if plain else ""

    def key_of(self, manifest: Manifest) -> Key:
        """The key of a finished artifact, from its address: its name without the fingerprints."""
        name = manifest.address.split("/")[1:-1]
        return tuple(value for value, part in zip(name, self.parts, strict=True) if not part.startswith("#"))
