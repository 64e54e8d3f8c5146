"""The graph of a factory's artifacts: what each is made from, what of it is there, and how the rest is made.

Every step is declared once, as a `Stage`; `STAGES` lists them. A `Graph` is one call's or one run's view of a factory:
it plans without making anything, and remembers what it planned and read.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from caploom.captioning.identity import captioner_fingerprint
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.errors import CaploomError, MissingArtifactError
from caploom.stages.registry import load_stage
from caploom.stages.stage import Configuration, Key, Making, Ref, Stage, Tools
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact, Plan
from caploom.storage.view import StoreView

_T = TypeVar("_T")


class Graph:
    """A factory's artifacts, as one call or run sees them.

    Planning is pure: nothing is decoded, made or written. A kind is listed once and a manifest read once; `make` adds
    what it made, and what others finish meanwhile is not seen, but by `make` itself. In a `tolerant` graph, what is
    damaged counts as missing, and so does what is read from a source that cannot be read.

    Example:
        >>> graph = Graph(Factory.from_yaml(Path("my.yaml")))
        >>> graph.find(Ref("training_set", ("sheared",)))
        Artifact('training_set/sheared/5b0c1c2f8a1d3e44')
    """

    def __init__(self, factory: Factory, *, tolerant: bool = False) -> None:
        self.factory = factory
        self.config = factory.config
        self.store = factory.store
        self.tolerant = tolerant
        self.view = StoreView(factory.store, tolerant=tolerant)
        self._plans: dict[Ref, Plan | MissingArtifactError] = {}
        self._found: dict[Ref, Artifact | None] = {}
        self._users: defaultdict[Ref, set[Ref]] = defaultdict(set)
        self._under_way: list[Ref] = []
        self._facts: dict[tuple[object, ...], object] = {}
        self._derived: dict[Ref, object] = {}
        self.expected: dict[str, int] = {}
        """Shards that the source's rows will be cut into and are not yet, with their rows; empty, unless told."""
        self.recorded: dict[str, Configuration] = {}
        """By kind and name, what data told of artifacts of then; taken as given, unless empty: nothing is asked."""

    # What the configuration says, looked up once.

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """The recipes by their names, seeds among them."""
        return {recipe.name: recipe for recipe in self.config.expanded_recipes()}

    def recipe(self, name: str) -> Recipe:
        """The recipe of that name; raises `ConfigError` when there is none."""
        return self.recipes[name] if name in self.recipes else self.config.recipe(name)

    def use(self, recipe: Recipe) -> None:
        """Plan with this recipe, which may be none of the configuration's, in place of the one of its name."""
        if self.recipes.get(recipe.name) != recipe:
            self.recipes[recipe.name] = recipe
            for ref in [each for each in (*self._plans, *self._found, *self._derived) if each.key == (recipe.name,)]:
                self._forget_users(ref)

    def fingerprint(self, captioner: str) -> str:
        """The fingerprint of a captioner."""
        return self.fact(("captioner", captioner), lambda: captioner_fingerprint(self.config.captioners[captioner]))

    def fact(self, key: tuple[object, ...], tell: Callable[[], _T]) -> _T:
        """What `tell` answers, asked once; for what artifacts cannot change."""
        if key not in self._facts:
            self._facts[key] = tell()
        return self._facts[key]  # type: ignore[return-value]

    @property
    def shards(self) -> list[str]:
        """The names of all shards, in their order."""
        return [shard for (shard,) in self.keys("shards")]

    # The artifacts.

    def stage(self, kind: str) -> Stage:
        """The declaration of a kind."""
        return load_stage(kind)

    def keys(self, kind: str) -> list[Key]:
        """Which artifacts of a kind the factory has, made or not."""
        return list(self.stage(kind).keys(self))

    def refs(self, kind: str) -> list[Ref]:
        """The same as references."""
        return [Ref(kind, key) for key in self.keys(kind)]

    def inputs(self, ref: Ref) -> list[Ref]:
        """What an artifact is made from, in the order of its plan."""
        return list(self.stage(ref.kind).inputs(self, ref.key))

    def asks(self, ref: Ref) -> list[Ref]:
        """What decides an artifact's configuration and is no input of it."""
        return list(self.stage(ref.kind).asks(self, ref.key)) if self.recorded_facts(ref) is None else []

    def facts(self, ref: Ref) -> Configuration:
        """What data says of an artifact beside its inputs: what is recorded, or as it is now."""
        recorded = self.recorded_facts(ref) if self.recorded else None
        return self.stage(ref.kind).facts(self, ref.key) if recorded is None else recorded

    def recorded_facts(self, ref: Ref) -> Configuration | None:
        """What of it is `recorded`; None where nothing is."""
        name = self.stage(ref.kind).name(self, ref.key) if self.recorded else ()
        return self.recorded.get("/".join((ref.kind, *name)))

    def ref_of(self, manifest: Manifest) -> Ref:
        """Which of the factory's artifacts a finished one is."""
        stage = self.stage(manifest.kind)
        key = stage.key_of(manifest) if stage.tell_key is None else stage.tell_key(self, manifest)
        return Ref(manifest.kind, key)

    def plan(self, ref: Ref) -> Plan:
        """What would be made; raises `MissingArtifactError` while something that it is made from is not there."""
        self._note_use(ref)
        planned = self._plans.get(ref)
        if planned is None:
            try:
                planned = self._at(ref, lambda: self._planned(ref))
            except MissingArtifactError as missing:
                planned = missing
            except CaploomError as error:
                if not self.tolerant or self.stage(ref.kind).source is None:
                    raise
                planned = MissingArtifactError(str(error))  # what it is read from is gone
            self._plans[ref] = planned
        if isinstance(planned, MissingArtifactError):
            raise planned
        return planned

    def find(self, ref: Ref) -> Artifact | None:
        """The finished artifact of the present configuration and inputs, or None."""
        self._note_use(ref)
        if ref not in self._found:
            self._found[ref] = self._at(ref, lambda: self._look(ref))
        return self._found[ref]

    def require(self, ref: Ref, *, by: Ref | None = None) -> Artifact:
        """The finished artifact; raises `MissingArtifactError` saying what makes it (`by` names who needs it)."""
        found = self.find(ref)
        if found is None:
            if self.stage(ref.kind).look is None and self.stage(ref.kind).make is None:
                self.plan(ref)  # what it is made from comes first
            raise MissingArtifactError(self._missing(ref, by))
        return found

    def existing(self, refs: Iterable[Ref]) -> list[Artifact]:
        """Those of the artifacts that are finished, in their order."""
        return [artifact for artifact in map(self.find, refs) if artifact is not None]

    def make(self, ref: Ref, tools: Tools | None = None) -> Artifact:
        """The artifact, found or made; what it needs is made too where it is made on demand, and required elsewhere.

        Raises `MissingArtifactError` naming what is to be made first, and the stage's own errors.
        """
        tools = tools or Tools()
        stage = self.stage(ref.kind)
        if stage.make is not None:
            artifact = stage.make(self, ref.key, tools)
            self.made(ref, artifact)
            return artifact
        self._prepare(ref)
        try:
            for each in (*self.asks(ref), *self.inputs(ref)):
                self._provide(each, ref, tools)
        except CaploomError as error:
            raise stage.explain(ref.key, error) from None
        made = self._found_or_built(ref, stage, tools)
        self.made(ref, made)
        return made

    def _found_or_built(self, ref: Ref, stage: Stage, tools: Tools) -> Artifact:
        plan = self.plan(ref)
        found = self.store.find(plan)
        if found is not None:
            return found
        making = Making(self, self.factory, ref, plan, tools)
        with stage.around(making):
            return self.store.make(plan, lambda draft: stage.build(making, draft))

    def derived(self, ref: Ref, tell: Callable[[], _T]) -> _T:
        """What `tell` makes of artifacts, remembered until one of them is made; `ref` names it, and is no artifact."""
        self._note_use(ref)
        if ref not in self._derived:
            self._derived[ref] = self._at(ref, tell)
        return self._derived[ref]  # type: ignore[return-value]

    def made(self, ref: Ref, artifact: Artifact) -> None:
        """Take note of an artifact that is there now: what was planned without it is planned anew."""
        self.view.keep(artifact)
        self._forget_users(ref)
        self._found[ref] = artifact

    def _provide(self, ref: Ref, by: Ref, tools: Tools) -> None:
        self._prepare(ref)
        try:
            if self.find(ref) is not None:
                return
        except CaploomError as error:
            raise self.stage(ref.kind).explain(ref.key, error) from None
        if not self.stage(ref.kind).on_demand:
            self.require(ref, by=by)
        self.make(ref, replace(tools, progress=None, bar=None))

    def _prepare(self, ref: Ref) -> None:
        self.stage(ref.kind).prepare(self, ref.key)
        if isinstance(self._plans.get(ref), MissingArtifactError):
            self._forget_users(ref)  # what could not be planned before can be now

    def _planned(self, ref: Ref) -> Plan:
        stage = self.stage(ref.kind)
        return Plan(
            kind=ref.kind,
            name=stage.name(self, ref.key),
            code_version=stage.code_version,
            configuration={**stage.settings(self, ref.key), **self.facts(ref)},
            inputs=tuple(self.require(each, by=ref).as_input() for each in stage.inputs(self, ref.key)),
        )

    def _look(self, ref: Ref) -> Artifact | None:
        stage = self.stage(ref.kind)
        if stage.look is not None:
            return stage.look(self, ref.key)
        try:
            return self.view.find(self.plan(ref))
        except MissingArtifactError:
            return None

    def _missing(self, ref: Ref, by: Ref | None) -> str:
        stage = self.stage(ref.kind)
        if stage.missing is not None:
            return stage.missing(self, ref.key)
        slot = stage.slot_of(ref.key)
        whose = self.stage(by.kind).slot_of(by.key) if by is not None and slot is None else slot
        asset, partition = whose or (ref.kind, None)
        make = f"materialize {asset}" + (f" [{partition}]" if partition is not None else "")
        return f"{ref} has not been made for the present configuration: {make} first."

    # What was planned with the help of what, so that making something forgets no more than it must.

    def _at(self, ref: Ref, tell: Callable[[], _T]) -> _T:
        self._under_way.append(ref)
        try:
            return tell()
        finally:
            self._under_way.pop()

    def _note_use(self, ref: Ref) -> None:
        if self._under_way and self._under_way[-1] != ref:
            self._users[ref].add(self._under_way[-1])

    def _forget_users(self, ref: Ref) -> None:
        forgotten, waiting = {ref}, [ref]
        while waiting:
            for user in self._users.pop(waiting.pop(), ()):
                if user not in forgotten:
                    forgotten.add(user)
                    waiting.append(user)
        for each in forgotten:
            self._plans.pop(each, None)
            self._found.pop(each, None)
            self._derived.pop(each, None)


def graph_of(factory: Factory | Graph, recipe: Recipe | None = None) -> Graph:
    """A graph at hand, or a new one of a factory; with this recipe in it, if one is given."""
    graph = factory if isinstance(factory, Graph) else Graph(factory)
    if recipe is not None:
        graph.use(recipe)
    return graph
