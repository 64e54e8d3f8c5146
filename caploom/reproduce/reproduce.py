"""Makes an artifact again from its manifest, in a fresh store, and says whether it is the same to the byte.

Where it is not, or cannot be made, the reasons that can be found are named: inputs, images and models that have
changed, another version of a package or of Caploom, another device.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from caploom.common.progress import track
from caploom.config.factory import Factory
from caploom.errors import CaploomError, StoreError
from caploom.reproduce.causes import code_changes, image_changes, input_changes, other_circumstances
from caploom.reproduce.differences import FileComparison, changed_since, changed_values, compare_files
from caploom.reproduce.fresh_store import FreshStore, PlanDiffersError, ancestors_of, name_of
from caploom.reproduce.rebuild import NotReproducibleError
from caploom.reproduce.remake import make_again
from caploom.stages.moves import moves_of
from caploom.stages.registry import STAGES, load_stage
from caploom.stages.stage import Stage, Tools
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact, Plan
from caploom.training.launch import Launch, launch_training

Outcome = Literal["byte-identical", "identical but for measured times", "different", "not made"]


@dataclass(frozen=True)
class Reproduction:
    """What came of making an artifact again.

    Attributes:
        address: the artifact's address.
        outcome: whether it came out the same; `not made` when it could not be made at all.
        files: each file, then and now; empty when it was not made.
        differences: sentences on what differs in the result, or on why there is none.
        causes: sentences on what is no longer as it was, and could explain it.
        damage: sentences on files of the original that are no longer what its manifest says.
        then_seconds, seconds: wall-clock time of the stage, then and now (all of the work of making it again).
        folder: where it was made, for whoever keeps it.
    """

    address: str
    outcome: Outcome
    files: list[FileComparison] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    then_seconds: float = 0.0
    seconds: float = 0.0
    folder: str = ""

    @property
    def is_same(self) -> bool:
        """Whether the artifact, as it lies in the store, is what its manifest makes."""
        return self.outcome in ("byte-identical", "identical but for measured times") and not self.damage

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"same": self.is_same, **asdict(self)}


def reproduce(factory: Factory, artifact: Artifact, folder: Path, *, launch: Launch | None = None) -> Reproduction:
    """Make an artifact again in a fresh store at `folder` (which is empty), and compare.

    The factory's store is read and never written. Trainings are processes with as many threads as then, unless `launch`
    starts them otherwise. What keeps an artifact from being made is an outcome; raises `StoreError` when the folder is
    not empty, and `NotReproducibleError` for a kind that is not known.
    """
    recorded = artifact.manifest
    stage = _stage_of(recorded.kind)
    _refuse_used(folder)
    started = time.perf_counter()
    ancestors, missing = ancestors_of(factory.store, recorded)
    store = FreshStore(folder, recorded, factory.store)
    causes = [*_edits(recorded), *input_changes(recorded, ancestors, missing), *code_changes(recorded, ancestors)]
    made, why_not = None, [f"Without {address} it cannot be made." for address in missing]
    if not missing:
        try:
            made = _make(factory, recorded, ancestors, store, launch or _as_then(recorded))
        except PlanDiffersError as error:
            why_not = error.differences
        except CaploomError as error:
            why_not = [str(error)]
    files = compare_files(artifact, made) if made is not None else []
    differences = [*why_not, *store.differences, *(_differences(recorded, made.manifest) if made is not None else [])]
    outcome = _outcome(made, files, differences)
    causes += other_circumstances(recorded, made.manifest if made is not None else None)
    if outcome in ("different", "not made") and stage.reads_images:
        with track("looking for changed images", "images") as bar:
            causes += image_changes([artifact, *ancestors.values()], bar.part(), moves_of(factory))
    return Reproduction(
        address=recorded.address,
        outcome=outcome,
        files=files,
        differences=differences,
        causes=list(dict.fromkeys(causes)),
        damage=changed_since(artifact),
        then_seconds=recorded.seconds,
        seconds=round(time.perf_counter() - started, 3),
        folder=str(made.folder if made is not None else folder),
    )


def _stage_of(kind: str) -> Stage:
    if kind not in STAGES:
        raise NotReproducibleError(f"Artifacts of the kind {kind} cannot be rebuilt; known: {', '.join(STAGES)}.")
    return load_stage(kind)


def _make(
    factory: Factory, recorded: Manifest, ancestors: Mapping[str, Artifact], store: FreshStore, launch: Launch
) -> Artifact | None:
    """Make it in the fresh store; None where what was made is gone again."""
    with track(f"{recorded.kind} again", load_stage(recorded.kind).unit) as bar:
        progress = bar.part()
        tools = Tools(progress, bar, launch=launch, report=lambda event: progress(event.step, event.steps))
        make_again(factory, recorded, ancestors, store, tools)
    if store.made is None:
        raise NotReproducibleError(f"{recorded.address}: its stage has nothing to make of that name any more.")
    return store.read(store.made)


def _as_then(recorded: Manifest) -> Launch:
    """Starts trainings with the number of threads of then: on a CPU sums come out otherwise with another."""
    threads = recorded.summary.get("threads")
    return (
        launch_training if threads is None else partial(launch_training, environment={"OMP_NUM_THREADS": str(threads)})
    )


def _outcome(made: Artifact | None, files: list[FileComparison], differences: list[str]) -> Outcome:
    if made is None:
        return "not made"
    kinds = {each.sameness for each in files}
    if differences or kinds - {"identical", "measured"}:
        return "different"
    return "identical but for measured times" if "measured" in kinds else "byte-identical"


def _differences(recorded: Manifest, made: Manifest) -> list[str]:
    """What the manifests say of the results; what they sum up counts where there are no files to compare."""
    found = []
    if made.data_version != recorded.data_version:
        found.append(f"The content's version was {recorded.data_version}, and is {made.data_version} now.")
    for name in ("rows", "seeds", *([] if recorded.files else ["summary"])):
        then, now = (json.loads(each.model_dump_json(include={name})) for each in (recorded, made))
        found += [f"{key} was {before}, and is {after} now." for key, before, after in changed_values(then, now)]
    return found


def _edits(recorded: Manifest) -> list[str]:
    """A manifest whose fingerprint is not that of what it says was written by hand."""
    plan = Plan(
        kind=recorded.kind,
        name=tuple(name_of(recorded).split("/")),
        code_version=recorded.code_version,
        configuration=recorded.configuration,
        inputs=tuple(recorded.inputs),
    )
    if plan.fingerprint == recorded.fingerprint == recorded.address.split("/")[-1]:
        return []
    return [
        f"The manifest of {recorded.address} was edited: what it says has the fingerprint {plan.fingerprint}, and not "
        f"{recorded.fingerprint}."
    ]


def _refuse_used(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = any(folder.iterdir())
    except OSError as error:
        raise StoreError(f"{folder}: it cannot be used as a folder ({error.strerror}); name another.") from None
    if used:
        raise StoreError(f"{folder}: the folder is not empty; name a new one.")
