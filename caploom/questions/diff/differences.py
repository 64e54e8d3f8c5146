"""Compares two recipes, or two artifacts: configuration, code, inputs, rows, metrics, cost."""

import re
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

from caploom.common.changes import Change, changes
from caploom.common.settings import nearest
from caploom.config.factory import Factory
from caploom.errors import StoreError
from caploom.evaluation.compare import paired_comparison
from caploom.evaluation.evaluate import RANKS_FILE
from caploom.questions.diff.rows import RowDifferences, row_differences
from caploom.questions.results.results import retrieval_sets
from caploom.stages.artifact_names import artifact_label, artifacts_below, find_artifact, label_of
from caploom.stages.graph import Graph
from caploom.stages.registry import stages as declared_stages
from caploom.stages.retrieval_metrics import KIND as METRICS
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact, Store

_VERSION = re.compile(r"^(?P<name>.+)@(?P<back>\d+)$")


@dataclass(frozen=True)
class MetricDifference:
    """A recall of both sides on the same queries: values, the first's minus the second's, interval and p-value."""

    stage: str
    evaluation_set: str
    scoring: str
    direction: str
    k: int
    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class StageDifference:
    """The differences between two artifacts of one kind.

    Attributes:
        kind: their kind.
        first, second: their addresses.
        same_content: whether their data versions are equal.
        configuration: keys that differ, dotted.
        code: versions of the stage, of Caploom and of packages that differ.
        inputs: inputs that only one has, or with different content.
        counts: rows in, out and failed, and reasons, that differ.
        rows: the fate of single captions; None for kinds without captions, or where the content is equal.
        metrics: the measurements that both have.
        seconds: how long each took to make.
    """

    kind: str
    first: str
    second: str
    same_content: bool
    configuration: list[Change]
    code: list[Change]
    inputs: list[Change]
    counts: list[Change]
    rows: RowDifferences | None
    metrics: list[MetricDifference]
    seconds: tuple[float, float]


@dataclass(frozen=True)
class Differences:
    """The whole answer: stage by stage, upstream first. `notes` are about what could not be compared."""

    first: str
    second: str
    stages: list[StageDifference]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The form that `caploom diff --json` prints."""
        stages = []
        for stage in self.stages:
            fields = asdict(stage)
            for name in ("configuration", "code", "inputs", "counts"):
                fields[name] = [change.to_dict() for change in getattr(stage, name)]
            stages.append(fields)
        return {"first": self.first, "second": self.second, "stages": stages, "notes": self.notes}


def differences(factory: Factory, first: str, second: str) -> Differences:
    """Compare two recipes of the YAML, stage by stage, or two artifacts of one kind.

    An artifact is named as for `find_artifact`; `NAME@1` is the version before the newest, `NAME@2` the one before.

    Raises:
        StoreError: if there is no such artifact (the nearest is named), or the two are of different kinds.

    Example:
        >>> found = differences(factory, "sheared", "raw-only")
        >>> [(change.key, change.before, change.after) for change in found.stages[0].configuration][:2]
        [('captioners', ['colours'], []), ('shear', 'first', 'none')]
    """
    recipes = {recipe.name: recipe for recipe in factory.config.expanded_recipes()}
    if first in recipes and second in recipes:
        stages, notes = [], []
        graph = Graph(factory)
        for stage in (each for each in declared_stages() if each.axes == ("recipe",)):
            asked = [(first,) in graph.keys(stage.kind), (second,) in graph.keys(stage.kind)]
            names = ["/".join((stage.kind, *stage.name(graph, (each,)))) for each in (first, second)]
            found = [_newest(factory.store, name) for name in names]
            if found[0] is not None and found[1] is not None:
                stages.append(_stage(factory.store, found[0], found[1]))
            elif any(asked):
                missing = " and ".join(label_of(f"{n}/-") for n, f in zip(names, found, strict=True) if f is None)
                notes.append(f"{missing}: not made yet, so not compared.")
        return Differences(first, second, stages, notes)
    for mine, theirs in ((first, second), (second, first)):
        if mine in recipes and theirs not in recipes:
            known = ", ".join(recipes)
            near = nearest(theirs, list(recipes))
            raise StoreError(f"{mine} is a recipe but {theirs} is not{near}; known: {known}.")
    one, other = _version(factory.store, first), _version(factory.store, second)
    if one.manifest.kind != other.manifest.kind:
        raise StoreError(
            f"{first} is of the kind {one.manifest.kind} but {second} of {other.manifest.kind}: name two of one kind."
        )
    return Differences(first, second, [_stage(factory.store, one, other)])


def _newest(store: Store, name: str) -> Artifact | None:
    return find_artifact(store, name) if artifacts_below(store, *name.split("/")) else None


def _version(store: Store, text: str) -> Artifact:
    """The artifact that a text names, optionally some versions back."""
    asked = _VERSION.match(text)
    if asked is None:
        return find_artifact(store, text)
    newest = find_artifact(store, asked["name"])
    label = artifact_label(newest.manifest)
    read = map(store.read, artifacts_below(store, newest.manifest.kind))
    versions = [each for each in read if each is not None and artifact_label(each.manifest) == label]
    versions.sort(key=lambda each: (each.manifest.started, each.manifest_path.stat().st_mtime_ns))
    back = int(asked["back"])
    if back >= len(versions):
        count = len(versions)
        raise StoreError(f"{label} has {count} version{'s' if count > 1 else ''}, so there is none {back} back.")
    return versions[-1 - back]


def _stage(store: Store, first: Artifact, second: Artifact) -> StageDifference:
    one, other = first.manifest, second.manifest
    same = one.data_version == other.data_version
    return StageDifference(
        kind=one.kind,
        first=one.address,
        second=other.address,
        same_content=same,
        configuration=changes(_configuration(store, first), _configuration(store, second)),
        code=changes(_code(one), _code(other)),
        inputs=changes(_inputs(one), _inputs(other)),
        counts=changes(_counts(one), _counts(other)),
        rows=None if same else row_differences(store, first, second),
        metrics=list(_metrics(first, second)) if one.kind == METRICS else [],
        seconds=(one.seconds, other.seconds),
    )


def _configuration(store: Store, artifact: Artifact) -> dict[str, Any]:
    """The stage's configuration; for sheared captions also the shear's rules, which their tables record."""
    manifest = artifact.manifest
    if manifest.kind != "sheared_captions" or not manifest.inputs:
        return manifest.configuration
    table = store.read(manifest.inputs[0].address)
    return manifest.configuration | ({"rules": table.manifest.configuration["steps"]} if table is not None else {})


def _code(manifest: Manifest) -> dict[str, Any]:
    versions = {f"package {name}": version for name, version in manifest.packages.items()}
    return {
        "code version": manifest.code_version,
        "caploom": manifest.caploom_version,
        "device": manifest.device,
        **versions,
    }


def _inputs(manifest: Manifest) -> dict[str, str]:
    """Inputs by their labels, with their content. A recipe's own inputs have the same name on both sides."""
    own = "/".join(manifest.address.split("/")[1:-1])
    named: dict[str, str] = {}
    for record in manifest.inputs:
        label = label_of(record.address)
        kind, *name = record.address.split("/")[:-1]
        named[kind if "/".join(name) == own else label] = record.data_version
    return named


def _counts(manifest: Manifest) -> dict[str, Any]:
    return manifest.rows.model_dump(mode="json") if manifest.rows is not None else {}


def _metrics(first: Artifact, second: Artifact) -> Iterator[MetricDifference]:
    theirs = retrieval_sets(second)
    for stage, name in retrieval_sets(first):
        if (stage, name) not in theirs:
            continue
        ranks = (each.file(f"{stage}/{name}/{RANKS_FILE}") for each in (first, second))
        for found in paired_comparison(*ranks):
            sides = found.scoring, found.direction, found.k, found.first, found.second
            yield MetricDifference(stage, name, *sides, *astuple(found.paired))
