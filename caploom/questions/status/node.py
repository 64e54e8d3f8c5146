"""How one slot is judged: the plan of the present YAML against the store, and against the slot's newest version."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caploom.common.changes import changes
from caploom.questions.status.slots import Cause, Slot, State, Why, changed
from caploom.questions.status.versions import Label, Versions, address_label
from caploom.storage.store import Artifact, Plan


@dataclass(frozen=True)
class Made:
    """What a stage is made of, as one side of a comparison.

    Attributes:
        configuration: as it is compared and told, key by key.
        code_version: of the stage.
        inputs: data versions by what they are; of the present side, those alone that are current.
    """

    configuration: Mapping[str, Any]
    code_version: str
    inputs: Mapping[Label, str]

    @classmethod
    def of_artifact(cls, artifact: Artifact) -> "Made":
        """As a manifest has it."""
        manifest = artifact.manifest
        inputs = {address_label(record.address): record.data_version for record in manifest.inputs}
        return cls(manifest.configuration, manifest.code_version, inputs)


@dataclass(frozen=True)
class Judged:
    """A slot with what those downstream need of it.

    Attributes:
        label: what it is a version of; recipes that share an artifact share it.
        artifact: the one that is current, else None.
        made_by_asker: whether the stage downstream makes it itself, so that it need not wait for it.
    """

    slot: Slot
    label: Label
    artifact: Artifact | None
    made_by_asker: bool = False


@dataclass(frozen=True)
class Question:
    """One slot, before it is judged.

    Attributes:
        asset: and `partition`, as `Slot` has them.
        label: what its versions are versions of.
        plan: what a run would look for; None while an input is not current.
        present: what it is made of now.
        upstream: its inputs, judged.
        earlier: looks up its newest version.
        past: what that was made of.
    """

    asset: str
    partition: str | None
    label: Label
    plan: Plan | None
    present: Made
    upstream: Sequence[Judged]
    earlier: Callable[[], Artifact | None]
    past: Callable[[Artifact], Made] = Made.of_artifact


def judge(question: Question, versions: Versions) -> Judged:
    """How the slot stands."""
    found = versions.find(question.plan) if question.plan is not None else None
    if found is not None:
        same = any(each.slot.same_content for each in question.upstream)
        return _judged(question, State.CURRENT, (), found, same=same)
    waits = waiting(question.upstream)
    damage = versions.problem(question.plan.address) if question.plan is not None else None
    own = [Cause(Why.DAMAGED, question.asset, f"its manifest cannot be read: {damage}")] if damage else []
    earlier = question.earlier()
    if earlier is not None:
        own = [*own, *own_causes(question.past(earlier), question.present, question.upstream)]
    if own:
        return _judged(question, State.STALE, [*own, *waits], earlier)
    if earlier is None:
        return _judged(question, State.MISSING, [Cause(Why.NEVER_MADE, question.asset, "never made"), *waits], None)
    if waits:
        return _judged(question, State.OUTDATED, waits, earlier)
    return _judged(question, State.CURRENT, (), earlier, same=True)


def _judged(
    question: Question, state: State, causes: Sequence[Cause], artifact: Artifact | None, *, same: bool = False
) -> Judged:
    address = artifact.manifest.address if artifact is not None else None
    slot = Slot(question.asset, question.partition, state, tuple(causes), address, same)
    return Judged(slot, question.label, artifact if state is State.CURRENT else None)


def plan_of(stage: Plan, upstream: Sequence[Judged]) -> Plan | None:
    """The plan of a stage that reads just these; None while one of them is not current."""
    artifacts = [each.artifact for each in upstream if each.artifact is not None]
    if len(artifacts) < len(upstream):
        return None
    return stage.of(artifact.as_input() for artifact in artifacts)


def current_inputs(upstream: Sequence[Judged]) -> dict[Label, str]:
    """Data versions of the inputs that are current."""
    return {each.label: each.artifact.data_version for each in upstream if each.artifact is not None}


def waiting(upstream: Sequence[Judged]) -> list[Cause]:
    """What a slot waits for, a cause an asset."""
    awaited: dict[str, dict[str, None]] = {}
    for each in upstream:
        if each.slot.state is not State.CURRENT and not each.made_by_asker:
            partitions = awaited.setdefault(each.slot.asset, {})
            if each.slot.partition is not None:
                partitions[each.slot.partition] = None
    return [Cause(Why.WAITS, asset, f"waits for {asset}", partitions=tuple(each)) for asset, each in awaited.items()]


def own_causes(past: Made, present: Made, upstream: Sequence[Judged]) -> list[Cause]:
    """What differs between two sides; of inputs, those that are current now."""
    found = [changed(each) for each in changes(dict(past.configuration), dict(present.configuration))]
    # A captioner or a set that came or went is told already.
    told = {name for each in found for name in _names(each.before) ^ _names(each.after)}
    if past.code_version != present.code_version:
        words = f"code version {past.code_version} to {present.code_version} (Caploom itself changed this stage)"
        found.append(Cause(Why.CODE, "code_version", words, past.code_version, present.code_version))
    for each in upstream:
        if each.made_by_asker and each.slot.state is State.STALE:
            whose = each.slot.asset.removesuffix("s").replace("_", " ")
            why = "; ".join(cause.text for cause in each.slot.causes)
            found.append(Cause(Why.INPUT, each.slot.label, f"{whose} {each.slot.partition}: {why}"))
    asked = {each.label for each in upstream}
    uncut = {each.label[0] for each in upstream if each.slot.partition is None}  # which shards is not known yet
    differing: dict[tuple[str, str], list[str]] = {}
    for label in dict.fromkeys([*past.inputs, *present.inputs, *asked]):
        asset, partition = label
        if asset in uncut or asset.rpartition("/")[2] in told or partition in told:
            continue
        if label not in asked:
            differing.setdefault(("no longer made of", asset), []).append(partition)
        elif label not in past.inputs and label in present.inputs:
            differing.setdefault(("not yet made of", asset), []).append(partition)
        elif label in present.inputs and past.inputs[label] != present.inputs[label]:
            differing.setdefault(("new content of", asset), []).append(partition)
    for (what, asset), partitions in differing.items():
        found.append(Cause(Why.INPUT, asset, f"{what} {asset}", partitions=tuple(each for each in partitions if each)))
    return found


def _names(value: Any) -> set[str]:
    return {name for name in value if isinstance(name, str)} if isinstance(value, list) else set()
