"""A fresh store that holds just what an artifact was made from: the artifact itself is not there to be found.

Manifests are copied and files are symbolic links, so that nothing large is copied and no folder is shared: what the
stage writes lies in folders of the fresh store, and stages never write into a finished artifact's files.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from caploom.errors import CaploomError
from caploom.reproduce.differences import only_code_differs, plan_differences
from caploom.stages.registry import load_stage
from caploom.storage.manifest import MANIFEST, Manifest
from caploom.storage.store import Artifact, Draft, Plan, Store


class PlanDiffersError(CaploomError):
    """The stage would make something else than the manifest records; `differences` says what, a sentence each."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__(" ".join(differences))
        self.differences = differences


class FreshStore(Store):
    """A store in which one artifact is rebuilt; it watches that the stage plans just that one.

    `made` is the address that the stage wrote, and `differences` what of its plan is not as recorded.
    """

    def __init__(self, root: Path, recorded: Manifest, original: Store) -> None:
        super().__init__(root)
        self._recorded = recorded
        self._original = original
        self.made: str | None = None
        self.differences: list[str] = []

    def make(self, plan: Plan, build: Callable[[Draft], None]) -> Artifact:
        """As `Store.make`; raises `PlanDiffersError` before another thing than the recorded one is made."""
        self._watch(plan)
        return super().make(plan, build)

    @contextmanager
    def writing(self, plan: Plan) -> Iterator[Draft]:
        """As `Store.writing`, watching like `make`."""
        self._watch(plan)
        with super().writing(plan) as draft:
            yield draft

    def url_of(self, address: str, name: str) -> str:
        """Where the file lies in the original store: tables name it so."""
        return self._original.url_of(address, name)

    def _watch(self, plan: Plan) -> None:
        recorded = self._recorded
        if (plan.kind, "/".join(plan.name)) != (recorded.kind, name_of(recorded)) or self.made == recorded.address:
            return
        differences = plan_differences(plan, recorded)
        # Where the plan says what came out, another outcome is another plan, and is compared like any other.
        if differences and not load_stage(plan.kind).outcome_in_plan and not only_code_differs(plan, recorded):
            raise PlanDiffersError(differences)
        self.made, self.differences = plan.address, differences


def name_of(manifest: Manifest) -> str:
    """The name in an artifact's address, between its kind and its fingerprint; `/` between its parts."""
    return "/".join(manifest.address.split("/")[1:-1])


def ancestors_of(store: Store, manifest: Manifest) -> tuple[dict[str, Artifact], list[str]]:
    """Everything that an artifact was made from, by address, nearest first; and the addresses that are not there."""
    found: dict[str, Artifact] = {}
    missing: dict[str, None] = {}
    waiting = [record.address for record in manifest.inputs]
    while waiting:
        address = waiting.pop(0)
        if address in found or address in missing:
            continue
        artifact = store.read(address)
        if artifact is None:
            missing[address] = None
            continue
        found[address] = artifact
        waiting += [record.address for record in artifact.manifest.inputs]
    return found, list(missing)


def link_into(store: Store, artifacts: Iterable[Artifact]) -> None:
    """Have a fresh store hold these artifacts of another store: their manifests copied, their files linked."""
    for artifact in artifacts:
        target = store.path(artifact.manifest.address)
        if (target / MANIFEST).exists():
            continue
        target.mkdir(parents=True, exist_ok=True)
        for name in artifact.manifest.files:
            link = target / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to((artifact.folder / name).resolve())
        shutil.copyfile(artifact.manifest_path, target / MANIFEST)
