"""How fast each stage was when it ran in this store: rates for `cost`, from manifests alone, none ever made up.

Manifests of an earlier version of Caploom may lack a figure: they are passed over.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from caploom.captioning import ledger
from caploom.captioning.settings import CaptionerSettings
from caploom.questions.status.versions import Versions
from caploom.stages import checkpoint
from caploom.stages import raw_pairs as ingest
from caploom.stages import retrieval_metrics as measure
from caploom.stages import sheared as shear
from caploom.stages import training_set as merge
from caploom.storage.manifest import MANIFEST, Manifest
from caploom.storage.store import Store

_NEWEST = 200  # manifests looked at, newest first: a store of millions of captions has thousands


@dataclass(frozen=True)
class Rate:
    """A measured speed.

    Attributes:
        per_second: units a second.
        basis: on what it was measured, in words.
        start: seconds that each piece of work took before and after its units, such as starting a training.
    """

    per_second: float
    basis: str
    start: float = 0.0

    def seconds(self, units: float, pieces: int) -> float:
        """What these units take, in that many pieces of work."""
        return units / self.per_second + self.start * pieces

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"per_second": round(self.per_second, 3), "start_seconds": round(self.start, 3), "basis": self.basis}


@dataclass(frozen=True)
class _Run:
    """One piece of work that was done: units, the seconds that they took, and those around them."""

    units: float
    seconds: float
    start: float
    device: str


class Rates:
    """The rates of a store. None is what every question answers where nothing like it was ever made."""

    def __init__(self, store: Store, versions: Versions) -> None:
        self._store = store
        self._versions = versions

    def captioning(self, captioner: str, fingerprint: str, settings: CaptionerSettings) -> Rate | None:
        """Captions a second: of this captioner, else of it with other settings, else of another with its model."""
        model = settings.fingerprinted().get("model")

        def same_model(manifest: Manifest) -> bool:
            return model is not None and manifest.configuration.get("settings", {}).get("model") == model

        return (
            _rate(self._captions(captioner, fingerprint), "captions of this captioner")
            or _rate(self._captions(captioner), "captions of this captioner with other settings")
            or _rate(self._captions(only=same_model), "captions of another captioner with the same model")
        )

    def ingesting(self, source: str) -> Rate | None:
        """Rows of the source a second: of this source, else of any."""
        return _rate(self._by_rows(ingest.KIND, source), "rows of this source") or _rate(
            self._by_rows(ingest.KIND), "rows of other sources"
        )

    def shearing(self, shear_fingerprint: str) -> Rate | None:
        """Captions a second: of this shear, else of any."""
        return _rate(
            self._by_rows(shear.SHARD_KIND, only=lambda each: each.address.split("/")[2] == shear_fingerprint),
            "captions by this shear",
        ) or _rate(self._by_rows(shear.SHARD_KIND), "captions by other shears")

    def merging(self, filters: Any) -> Rate | None:
        """Captions a second, of training sets with these filters."""
        return _rate(
            self._by_rows(merge.KIND, only=lambda each: each.configuration.get("filters", []) == filters),
            "captions merged" if not filters else "captions merged with these filters",
        )

    def training(self, trainer: dict[str, Any]) -> Rate | None:
        """Samples a second: of this model at this batch size and precision, else of this model."""

        def alike(*keys: str) -> Callable[[Manifest], bool]:
            return lambda each: all(each.configuration.get("trainer", {}).get(key) == trainer.get(key) for key in keys)

        trained = [*self._manifests(checkpoint.KIND), *self._manifests(checkpoint.FINETUNED_KIND)]
        whole = [each for each in trained if not each.summary.get("resumed_from")]  # else part of it was not timed
        same = [each for each in whole if alike("kind", "model", "batch_size", "precision")(each)]
        model = [each for each in whole if alike("kind", "model")(each)]
        return _rate(_trained(same), "samples of this model at this batch size") or _rate(
            _trained(model), "samples of this model at another batch size"
        )

    def measuring(self, evaluation_sets: Sequence[str], model: Any) -> Rate | None:
        """Stages measured a second, on these evaluation sets with checkpoints of this model."""

        def runs() -> Iterable[_Run]:
            for each in self._manifests(measure.KIND):
                first = self._versions.read(each.inputs[0].address) if each.inputs else None
                if each.configuration.get("evaluation_sets") != list(evaluation_sets) or first is None:
                    continue
                if first.manifest.configuration.get("trainer", {}).get("model") == model:
                    stages = {measured.get("stage") for measured in each.summary.get("measurements", [])}
                    yield _Run(len(stages), each.seconds, 0.0, each.device)

        return _rate(runs(), "checkpoints of this model on these sets")

    def _captions(self, *name: str, only: Callable[[Manifest], bool] = lambda each: True) -> Iterable[_Run]:
        for each in self._manifests(ledger.KIND, *name):
            if only(each):
                images = each.summary.get("generated") or 0
                # On a cluster the artifact took only its tables' writing, and its workers were at it for longer.
                worked = images / (each.summary.get("images_per_second") or math.inf)
                yield _Run(images, max(each.seconds, worked), 0.0, each.device)

    def _by_rows(self, *parts: str, only: Callable[[Manifest], bool] = lambda each: True) -> Iterable[_Run]:
        for each in self._manifests(*parts):
            if only(each) and each.rows is not None:
                yield _Run(each.rows.rows_in, each.seconds, 0.0, each.device)

    def _manifests(self, *parts: str) -> list[Manifest]:
        """The newest manifests below a kind or name; damaged ones are named by `Versions`."""
        root = self._store.root.resolve()
        folder = self._store.path("/".join(parts))
        paths = [
            path
            for path in folder.rglob(MANIFEST)
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
        newest = sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)[:_NEWEST]
        found = (self._versions.read(path.parent.relative_to(root).as_posix()) for path in newest)
        return [artifact.manifest for artifact in found if artifact is not None]


def _trained(manifests: Iterable[Manifest]) -> Iterable[_Run]:
    for each in manifests:
        seconds = each.summary.get("seconds", 0.0)
        yield _Run(each.summary.get("samples_seen", 0), seconds, max(0.0, each.seconds - seconds), each.device)


def _rate(runs: Iterable[_Run], what: str) -> Rate | None:
    """The rate over all of them together; None where nothing was timed."""
    timed = [run for run in runs if run.units > 0 and run.seconds > 0]
    if not timed:
        return None
    units = sum(run.units for run in timed)
    devices = ", ".join(sorted({run.device for run in timed}))
    start = sum(run.start for run in timed) / len(timed)
    return Rate(units / sum(run.seconds for run in timed), f"{units:,.0f} {what}, on {devices}", start)
