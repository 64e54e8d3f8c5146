"""What an artifact was made of beside what it would be made of now, and the causes that the difference is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from caploom.common.changes import Change, changes
from caploom.errors import MissingArtifactError
from caploom.questions.status.slots import Cause, Slot, StaleCause, State, changed
from caploom.stages.graph import Graph
from caploom.stages.registry import load_stage
from caploom.stages.stage import BEHIND, Label, Ref, Stage
from caploom.storage.manifest import InputRecord
from caploom.storage.store import Artifact


class SlotStatus(NamedTuple):
    """A slot with what those downstream need of it.

    Attributes:
        label: what it is a version of; recipes that share an artifact share it.
        artifact: the one that is current, else None.
        made_by_asker: whether the stage downstream makes it itself, so that it need not wait for it.
        label_kind: the kind of what is no slot of its own.
    """

    slot: Slot
    label: Label
    artifact: Artifact | None
    made_by_asker: bool = False
    label_kind: str | None = None


@dataclass(frozen=True)
class Inputs:
    """What an artifact is made of, as one side of a comparison.

    Attributes:
        code_version: of the stage.
        configuration: its own, as it is shown.
        passed_on: that of inputs that are no slots, as those show it.
        fact_keys: keys of its configuration that only data tells, and does not yet.
        versions: of its inputs, data versions by what they are; of the present side, those alone that are current.
    """

    code_version: str
    configuration: Mapping[str, Any]
    passed_on: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[Label, str] = field(default_factory=dict)
    fact_keys: frozenset[str] = frozenset()

    @staticmethod
    def changes(before: Any, after: Any) -> list[Change]:
        """What differs between two configurations; what lies behind the settings counts where none of them differs."""
        found = changes(before, after)
        return [each for each in found if each.key != BEHIND] or found

    def changed_since(self, past: "Inputs") -> list[Change]:
        """How the configuration differs from an earlier one, key by key."""
        unknown = self.fact_keys | past.fact_keys
        common = past.passed_on.keys() & self.passed_on.keys()  # of an input of another name there is nothing to say
        before, after = (
            {
                **{key: value for key, value in side.configuration.items() if key not in unknown},
                **{key: side.passed_on[key] for key in side.passed_on if key in common},
            }
            for side in (past, self)
        )
        return self.changes(before, after)


def ref_inputs(graph: Graph, ref: Ref, upstream: Iterable[SlotStatus]) -> Inputs:
    """What an artifact is made of now."""
    stage = graph.stage(ref.kind)
    try:
        facts, unknown = stage.facts(graph, ref.key), frozenset[str]()
    except MissingArtifactError:
        facts, unknown = {}, stage.fact_keys
    configuration = {**stage.settings(graph, ref.key), **facts}
    hidden = {each.kind: each for each in reversed(graph.inputs(ref)) if graph.stage(each.kind).hidden}
    passed_on = [_passed_on(stage, configuration, _settings(graph, each), each.kind) for each in hidden.values()]
    return Inputs(
        stage.code_version,
        stage.shown(configuration),
        {key: value for each in passed_on for key, value in each.items()},
        {each.label: each.artifact.data_version for each in upstream if each.artifact is not None},
        unknown,
    )


def artifact_inputs(
    stage: Stage, artifact: Artifact, read: Callable[[str], Artifact | None], *, without: Sequence[str] = ()
) -> Inputs:
    """What a finished artifact was made of, but for inputs of these names (`without`)."""
    manifest = artifact.manifest
    versions: dict[Label, str] = {}
    passed_on: dict[str, Any] = {}
    waiting: list[InputRecord] = list(manifest.inputs)
    while waiting:
        record = waiting.pop(0)
        kind, *name, _ = record.address.split("/")
        source = load_stage(kind)
        label = source.label_of(tuple(name))
        if source.hidden:
            found = read(record.address)
            if found is not None:
                passed_on = {
                    **_passed_on(stage, manifest.configuration, found.manifest.configuration, kind),
                    **passed_on,
                }
                if found.manifest.inputs:
                    waiting[:0] = found.manifest.inputs
                    continue
        # Of an input that stands there in several versions, the first is its own.
        if label[1] not in without:
            versions.setdefault(label, record.data_version)
    return Inputs(manifest.code_version, stage.shown(manifest.configuration), passed_on, versions)


def _settings(graph: Graph, ref: Ref) -> Mapping[str, Any]:
    stage = graph.stage(ref.kind)
    found = graph.find(ref) if stage.look is not None else None
    if found is not None:
        return found.manifest.configuration
    if stage.look is not None:
        return stage.source(graph, ref.key) if stage.source is not None else {}
    return stage.settings(graph, ref.key)


def _passed_on(stage: Stage, own: Mapping[str, Any], theirs: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """What an input that is no slot shows of its configuration, as a part of its user's."""
    shown = load_stage(kind).shown(theirs)
    return {stage.passed_on.format(**{**own, "key": key}): value for key, value in shown.items()}


def waiting(upstream: Sequence[SlotStatus]) -> list[Cause]:
    """What a slot waits for, a cause an asset."""
    awaited: dict[str, dict[str, None]] = {}
    for each in upstream:
        if each.slot.state is not State.CURRENT and not each.made_by_asker and each.label_kind is None:
            partitions = awaited.setdefault(each.slot.asset, {})
            if each.slot.partition is not None:
                partitions[each.slot.partition] = None
    return [
        Cause(StaleCause.WAITS, asset, f"waits for {asset}", partitions=tuple(each)) for asset, each in awaited.items()
    ]


def own_causes(past: Inputs, present: Inputs, upstream: Sequence[SlotStatus]) -> list[Cause]:
    """What differs between two sides; of inputs, those that are current now."""
    found = [changed(each) for each in present.changed_since(past)]
    # A captioner or a set that came or went is told already.
    told = {name for each in found for name in _names(each.before) ^ _names(each.after)}
    if past.code_version != present.code_version:
        words = f"code version {past.code_version} to {present.code_version} (Caploom itself changed this stage)"
        found.append(Cause(StaleCause.CODE, "code_version", words, past.code_version, present.code_version))
    for each in upstream:
        if each.made_by_asker and each.slot.state is State.STALE:
            whose = each.slot.asset.removesuffix("s").replace("_", " ")
            why = "; ".join(cause.text for cause in each.slot.causes)
            found.append(Cause(StaleCause.INPUT, each.slot.label, f"{whose} {each.slot.partition}: {why}"))
    asked = {each.label for each in upstream}
    uncut = {each.label[0] for each in upstream if each.slot.partition is None}  # which shards is not known yet
    differing: dict[tuple[str, str], list[str]] = {}
    for label in dict.fromkeys([*past.versions, *present.versions, *asked]):
        asset, partition = label
        if asset in uncut or asset.rpartition("/")[2] in told or partition in told:
            continue
        if label not in asked:
            differing.setdefault(("no longer made of", asset), []).append(partition)
        elif label not in past.versions and label in present.versions:
            differing.setdefault(("not yet made of", asset), []).append(partition)
        elif label in present.versions and past.versions[label] != present.versions[label]:
            differing.setdefault(("new content of", asset), []).append(partition)
    for (what, asset), partitions in differing.items():
        words = f"{what} {asset}"
        found.append(Cause(StaleCause.INPUT, asset, words, partitions=tuple(each for each in partitions if each)))
    return found


def _names(value: Any) -> set[str]:
    return {name for name in value if isinstance(name, str)} if isinstance(value, list) else set()
