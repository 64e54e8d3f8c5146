"""What of a factory is missing or stale, and why: the whole graph of the present YAML against the store.

A slot is `stale` by a cause of its own: its configuration or Caploom's code differs from what its newest version was
made with, or the content of an input that is current. What lies downstream of a slot that is not current is `outdated`
when nothing of its own differs: it waits, and whether it must be rebuilt shows when its input has been. An input
rebuilt with identical content (the same data version) makes nothing downstream stale. Nothing is made or written here.
"""

from collections.abc import Sequence
from dataclasses import replace

from caploom.config.factory import Factory
from caploom.errors import MissingArtifactError
from caploom.questions.status.compare import Inputs, SlotStatus, artifact_inputs, own_causes, ref_inputs, waiting
from caploom.questions.status.slots import Cause, FactoryStatus, Slot, StaleCause, State, changed
from caploom.stages.graph import Graph
from caploom.stages.registry import stages
from caploom.stages.stage import Key, Ref, Stage
from caploom.storage.store import Artifact, Plan

__all__ = ["Cause", "FactoryStatus", "Slot", "StaleCause", "State", "factory_status"]


def factory_status(factory: Factory) -> FactoryStatus:
    """How each slot of the present YAML stands: shards, captioners, recipes and the report, upstream first.

    Example:
        >>> status = factory_status(Factory.from_yaml(Path("my.yaml")))
        >>> [slot.label for slot in status.of_state(State.MISSING)]
        ['ablation_report']
    """
    graph = StatusGraph(factory)
    slots: dict[tuple[str, str | None], list[tuple[Stage, Slot]]] = {}
    for stage in stages():
        for key in graph.keys(stage.kind) if not stage.hidden else []:
            slot = graph.status(Ref(stage.kind, key)).slot
            slots.setdefault((slot.asset, slot.partition), []).append((stage, slot))
    return FactoryStatus(factory.config.name, tuple(map(_one_slot, slots.values())), graph.view.damaged)


class StatusGraph(Graph):
    """A graph in which an artifact is there, too, when an earlier version was made of the same content."""

    def __init__(self, factory: Factory) -> None:
        super().__init__(factory, tolerant=True)
        self._statuses: dict[Ref, SlotStatus] = {}
        self._behind: dict[Ref, list[Ref]] = {}
        if not self.shards:
            self.expected = {"": 0}  # its slots are without a partition

    def _note_use(self, ref: Ref) -> None:
        """Nothing: where nothing is made, nothing planned is ever to be forgotten."""

    def status(self, ref: Ref) -> SlotStatus:
        """How an artifact stands."""
        known = self._statuses.get(ref)
        if known is None:
            known = self._statuses[ref] = self._evaluate(ref, self.stage(ref.kind))
        return known

    def upstream(self, ref: Ref) -> list[SlotStatus]:
        """The inputs of an artifact, as people know them: what is no slot is looked through."""
        return [self.status(each) for each in dict.fromkeys(self._visible(ref))]

    def _visible(self, ref: Ref) -> list[Ref]:
        if ref not in self._behind:
            found: list[Ref] = []
            for each in self.inputs(ref):
                further = self._visible(each) if self.stage(each.kind).hidden else None
                found += further or (each,)
            self._behind[ref] = found
        return self._behind[ref]

    def _look(self, ref: Ref) -> Artifact | None:
        if self.stage(ref.kind).hidden:
            return super()._look(ref)
        return self.status(ref).artifact

    def _evaluate(self, ref: Ref, stage: Stage) -> SlotStatus:
        if stage.look is not None:
            return self._looked_up(ref, stage)
        if stage.partial:
            return self._evaluate_partial(ref, stage)
        plan, problem = self._plan_or_problem(ref, stage)
        found = self.view.find(plan) if plan is not None else None
        upstream = self.upstream(ref) if stage.source is None else []
        if found is not None:
            same = any(each.slot.same_content for each in upstream)
            return self._standing(ref, State.CURRENT, (), found, same=same)
        if stage.source is not None:
            return self._evaluate_source(ref, stage, problem)
        absent = [self.stage(each.label_kind) for each in upstream if each.artifact is None and each.label_kind]
        causes = [Cause(StaleCause.SOURCE, "pairs", each.absent) for each in absent if each.absent]
        damage = self.view.problem(plan.address) if plan is not None else None
        if damage:
            causes.append(Cause(StaleCause.DAMAGED, self._slot(ref)[0], f"its manifest cannot be read: {damage}"))
        earlier = self._newest(stage, ref.key)
        if earlier is not None:
            past = artifact_inputs(stage, earlier, self.view.read)
            causes = [*own_causes(past, ref_inputs(self, ref, upstream), upstream), *causes]
        return self._judged(ref, causes, upstream, earlier, missing=bool(absent))

    def _judged(
        self,
        ref: Ref,
        causes: Sequence[Cause],
        upstream: Sequence[SlotStatus],
        earlier: Artifact | None,
        *,
        missing: bool = False,
    ) -> SlotStatus:
        """How an artifact stands that no run would find: by its own causes, then by what it waits for."""
        waits = waiting(upstream)
        damaged = any(cause.why is StaleCause.DAMAGED for cause in causes)
        if earlier is None and not damaged:
            asset = self._slot(ref)[0]
            never = [] if missing else [Cause(StaleCause.NEVER_MADE, asset, "never made")]
            return self._standing(ref, State.MISSING, [*never, *causes, *waits], None)
        if causes:
            return self._standing(ref, State.STALE, [*causes, *waits], earlier)
        if waits:
            return self._standing(ref, State.OUTDATED, waits, earlier)
        return self._standing(ref, State.CURRENT, (), earlier, same=True)

    def _evaluate_source(self, ref: Ref, stage: Stage, problem: str | None) -> SlotStatus:
        """What is read from outside the store: files are hashed, no image is opened, nothing is drawn."""
        assert stage.source is not None
        asset, name = self._slot(ref)
        causes = [Cause(StaleCause.SOURCE, str(name), problem)] if problem else []
        alike = (each for each in stages() if each.source is not None and each.axes == stage.axes)
        found = [each for each in (self._newest(one, ref.key) for one in alike) if each is not None]
        if not found:
            never = Cause(StaleCause.NEVER_MADE, asset, "never made")
            return self._standing(ref, State.MISSING, [never, *causes], None)
        earlier = found[0].manifest
        before = earlier.summary.get("reader", earlier.configuration.get("reader"))
        now = stage.source(self, ref.key)
        differing = [changed(each) for each in Inputs.changes(before, now)] if before is not None else []
        told = [*differing, *causes] or [Cause(StaleCause.SOURCE, str(name), "the content of its source changed")]
        return self._standing(ref, State.STALE, told, found[0])

    def _evaluate_partial(self, ref: Ref, stage: Stage) -> SlotStatus:
        """What is made of those inputs that are there is current as long as a run would find it, whoever waits."""
        upstream = self.upstream(ref)
        newest, waits = self._newest(stage, ref.key), waiting(upstream)
        if newest is None:
            return self._judged(ref, [], upstream, None)
        waited = newest.manifest.configuration["waiting"]
        past = artifact_inputs(stage, newest, self.view.read, without=waited)
        present = ref_inputs(self, ref, upstream)
        own = own_causes(past, present, upstream)
        if own:
            return self._standing(ref, State.STALE, [*own, *waits], newest)
        unmade = [each.slot.partition for each in upstream if each.artifact is None]
        if waits and (past.versions != present.versions or waited != unmade):
            return self._standing(ref, State.OUTDATED, waits, newest)
        same = any(each.slot.same_content for each in upstream)
        return self._standing(ref, State.CURRENT, (), newest, same=same)

    def _looked_up(self, ref: Ref, stage: Stage) -> SlotStatus:
        found = super()._look(ref)
        state = State.CURRENT if found is not None else State.MISSING
        slot = Slot(stage.label, ref.key[-1] or None, state)
        return SlotStatus(slot, (stage.label, ref.key[-1]), found, label_kind=stage.kind)

    def _plan_or_problem(self, ref: Ref, stage: Stage) -> tuple[Plan | None, str | None]:
        try:
            return self.plan(ref), None
        except MissingArtifactError as missing:
            return None, str(missing) if stage.source is not None else None

    def _newest(self, stage: Stage, key: Key) -> Artifact | None:
        """The newest version of an artifact, of whatever configuration."""
        name = stage.name(self, key)
        plain = (None if part.startswith("#") else value or None for part, value in zip(stage.parts, name, strict=True))
        return self.view.newest(stage.kind, *plain)

    def _standing(
        self, ref: Ref, state: State, causes: Sequence[Cause], artifact: Artifact | None, *, same: bool = False
    ) -> SlotStatus:
        stage = self.stage(ref.kind)
        address = artifact.manifest.address if artifact is not None else None
        slot = Slot(*self._slot(ref), state, tuple(causes), address, same, stage.axes[-1] if stage.axes else "")
        return SlotStatus(
            slot,
            stage.label_of(stage.name(self, ref.key)),
            artifact if state is State.CURRENT else None,
            made_by_asker=stage.on_demand,
        )

    def _slot(self, ref: Ref) -> tuple[str, str | None]:
        slot = self.stage(ref.kind).slot_of(ref.key)
        assert slot is not None
        return slot


def _one_slot(parts: Sequence[tuple[Stage, Slot]]) -> Slot:
    """Several artifacts as the one slot that they are in Dagster, such as a recipe's checkpoints."""
    (_, slot), *rest = parts
    first = slot
    for stage, second in rest:
        if second.state is State.CURRENT:
            continue
        causes = [
            replace(cause, words=f"{stage.label}: {cause.words}")
            for cause in second.causes
            if cause.why is not StaleCause.WAITS or cause.what != slot.asset
        ]
        state = second.state if slot.state is State.CURRENT else slot.state
        if State.STALE in (first.state, second.state) or state is State.MISSING:
            state = first.state if first.state is State.MISSING else State.STALE
        slot = replace(slot, state=state, causes=(*slot.causes, *causes))
    return slot
