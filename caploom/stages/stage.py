"""What a step of the factory declares of itself, once: everything that asks about the graph reads it here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias

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
"""A key of a `shown` configuration: what a fingerprint covers beside the settings. Told when no setting changed."""


@dataclass(frozen=True)
class Ref:
    """An artifact of a factory, whichever version of it: its kind, and which of that kind.

    The key has one value for each of its stage's `axes`: a shard, a captioner, a recipe, a set's name.
    """

    kind: str
    key: Key = ()

    def __str__(self) -> str:
        return "/".join((self.kind, *self.key))


@dataclass(frozen=True)
class Tools:
    """What making takes beside the graph.

    Attributes:
        progress: of the rows of the artifact that is asked for.
        bar: of a stage that has parts of its own.
        load: loads a captioner, when something is to be generated.
        launch: starts a training.
        report: is told how a training goes.
    """

    progress: Progress | None = None
    bar: StageBar | None = None
    load: Callable[[CaptionerSettings, Store], Backend] = load_backend
    launch: Launch = launch_training
    report: Callable[[TrainingEvent], None] = lambda event: None


@dataclass(frozen=True)
class Making:
    """An artifact that is being made: its plan, and the graph that holds what it is made from."""

    graph: Graph
    ref: Ref
    plan: Plan
    tools: Tools

    @property
    def factory(self) -> Factory:
        """The factory."""
        factory: Factory = self.graph.factory
        return factory

    @property
    def config(self) -> FactoryConfig:
        """Its configuration."""
        config: FactoryConfig = self.graph.config
        return config

    @property
    def store(self) -> Store:
        """Its store."""
        store: Store = self.graph.store
        return store

    @property
    def recipe(self) -> Recipe:
        """The recipe, of an artifact whose key is a recipe's name."""
        recipe: Recipe = self.graph.recipe(self.ref.key[0])
        return recipe

    def inputs(self, *kinds: str) -> list[Artifact]:
        """What it is made from, in the order of the plan; of these kinds alone, if some are named."""
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
    """Finished artifacts whose speed says something of those to be made.

    Attributes:
        words: what was measured: "captions of this captioner".
        below: the beginning of their names.
        which: those that count.
    """

    words: str
    below: tuple[str, ...] = ()
    which: Callable[[Graph, Manifest], bool] = lambda graph, manifest: True


def by_rows(graph: Graph, manifest: Manifest) -> Measured | None:
    """The speed of work whose units are the rows that come in."""
    return Measured(manifest.rows.rows_in, manifest.seconds) if manifest.rows is not None else None


@dataclass(frozen=True)
class Cost:
    """How much work the artifacts of a kind are, and how long such work took before.

    Attributes:
        unit: what is counted.
        line: the line of a cost plan that an artifact belongs to.
        split: what keeps lines of one name apart.
        units: how many units those to be made of a line are, and whether that is certain; else it is the most.
        shared_by: how many recipes use an artifact of a line, at most.
        measured: what a finished artifact's manifest says of its speed; None where that is nothing. Unless given, that
            one artifact took so long.
        alike: the artifacts whose speed counts for the first of those to be made; the first that there are do.
        steps: optimizer steps of an artifact.
        also: kinds whose speed counts too.
        title: the kind that it is counted as; its own, unless given.
        verb: what a run does to make one, in a word for people; the title, unless given.
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
    """What of the YAML makes an artifact stale in Dagster's UI when it is edited.

    Attributes:
        name: what it is called there.
        says: what it is; the step's `settings`, unless given.
    """

    name: str
    says: Callable[[Graph, Key], Any] | None = None


@dataclass(frozen=True)
class Checks:
    """What must always hold of a kind's artifacts: names as in `caploom.stages.checks.DESCRIPTIONS`, and who counts."""

    names: tuple[str, ...] = ()
    run: Callable[[Graph, Artifact], list[Any]] = lambda graph, artifact: []


def _key_is_name(graph: Graph, key: Key) -> Key:
    return key


def _none(graph: Graph, key: Key) -> Iterable[Ref]:
    return ()


def _unexplained(key: Key, error: CaploomError) -> CaploomError:
    return error


def _not_built(making: Making, draft: Draft) -> None:
    raise NotImplementedError(f"{making.ref}: artifacts of this kind are not built from a plan.")


@dataclass(frozen=True)
class Stage:
    """A step of the factory: one kind of artifact.

    Attributes:
        kind: the first part of its artifacts' addresses.
        code_version: raised when the same inputs give another result.
        axes: what each value of a key is: shard, captioner, recipe, ...
        keys: which artifacts there are.
        settings: what the YAML says of one; it enters the fingerprint.
        facts: what data says of one beside its inputs; it enters the fingerprint too. Pure: it reads and never makes.
            Raises `MissingArtifactError` when something that it asks for is not there.
        build: writes the files of one into a draft.
        upstream: kinds of its inputs and of what it asks for, whatever the key.
        inputs: the artifacts that one is made from; they enter the fingerprint, in this order.
        asks: artifacts that decide its configuration and are no inputs.
        name: what stands between kind and fingerprint in the address; the key, unless given.
        name_parts: what those parts are, the axes unless given; a fingerprint, which nobody writes, begins with "#".
        tell_key: tells the key of a finished artifact, where its address without the fingerprints does not.
        on_demand: whether whoever needs one makes it, instead of asking the user to.
        prepare: what is to be had before one can be planned that is to be made: pictures that are drawn.
        look: finds one where no plan can tell its address, as its content is part of that.
        make: makes one that is not built from a plan.
        around: what is held while one is built: a lock, a claim.
        explain: words a fault of what it needs.
        missing: says what makes one that is not there; else that its slot is to be materialized.
        hidden: whether people know its artifacts only as a part of what is made from them.
        slot: the asset, and the partition of it, that people know one as; unless given, its kind and key, of which the
            last value is the partition.
        label: what one is called that is no slot; of several artifacts that are one slot, said before its causes.
        absent: what is said where one is not there that people cannot ask for.
        shown: its configuration as the YAML has it, from that of a manifest or plan.
        passed_on: what `key` of an input that is no slot is called as a part of its own configuration.
        words: its configuration in few words.
        unit: what its progress counts.
        cost: how much work its artifacts are; None: none that anybody counts.
        tables: its tables by their names (patterns), with their schemas.
        images: the table among them that names images (columns image_id and path).
        reads_images: whether the images themselves decide it, and not only their identities.
        outcome_in_plan: whether its content is part of its plan.
        source: of one that is read from outside the store: the settings of its reader as they are now.
        is_content: whether it says what was measured or trained on, and not how.
        partial: whether it is made of those inputs that are there.
        told_by_data: keys of `facts`; as recorded where an artifact is made again.
        beside_results: keys that decide no figure: the seed, further files for people.
        checks: what must hold of it.
        piece: what of the YAML its asset follows; its `settings`, unless given.
        remake: how it is made again where `make` alone would not do: `module:function`, given a `Work` of `reproduce`.
    """

    kind: str
    code_version: str
    axes: tuple[str, ...]
    keys: Callable[[Graph], Iterable[Key]]
    settings: Callable[[Graph, Key], Configuration] = lambda graph, key: {}
    facts: Callable[[Graph, Key], Configuration] = lambda graph, key: {}
    build: Callable[[Making, Draft], None] = _not_built
    upstream: tuple[str, ...] = ()
    inputs: Callable[[Graph, Key], Iterable[Ref]] = _none
    asks: Callable[[Graph, Key], Iterable[Ref]] = _none
    name: Callable[[Graph, Key], Key] = _key_is_name
    name_parts: tuple[str, ...] | None = None
    tell_key: Callable[["Graph", Manifest], Key] | None = None
    on_demand: bool = False
    prepare: Callable[[Graph, Key], None] = lambda graph, key: None
    look: Callable[[Graph, Key], Artifact | None] | None = None
    make: Callable[[Graph, Key, Tools], Artifact] | None = None
    around: Callable[[Making], AbstractContextManager[None]] = lambda making: nullcontext()
    explain: Callable[[Key, CaploomError], CaploomError] = _unexplained
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
    images: str | None = None
    reads_images: bool = False
    outcome_in_plan: bool = False
    source: Callable[[Graph, Key], Configuration] | None = None
    is_content: bool = False
    partial: bool = False
    told_by_data: frozenset[str] = frozenset()
    beside_results: frozenset[str] = frozenset()
    checks: Checks = field(default_factory=Checks)
    piece: Piece | None = None
    remake: str | None = None

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
