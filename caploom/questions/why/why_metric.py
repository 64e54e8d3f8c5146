"""Explains a recipe's number: from the metric to the checkpoint, the training set, and the captions."""

from dataclasses import asdict, dataclass
from typing import Any

import duckdb

from caploom.catalog.catalog import open_catalog
from caploom.common.settings import nearest
from caploom.common.text import counted, time_text
from caploom.errors import ConfigError, StoreError
from caploom.questions.why.metrics import WhyFigure, all_measurements, figures_of
from caploom.questions.why.training import WhyTraining, WhyTrainingSet, training_of, training_set_of
from caploom.stages.registry import sharded
from caploom.storage.manifest import Manifest
from caploom.storage.store import Store

_TRAINED = ("checkpoint", "finetuned_checkpoint")
_BACK = (
    "with recursive back(address) as (select ?::text union select input_address from inputs join back using (address))"
)
"""All that the artifact of an address was made from, itself among it."""


@dataclass(frozen=True)
class Why:
    """The answer: the figures of the metric, and what they are based on.

    `missing` names artifacts that are gone or damaged, `newer` those that have a newer version than this number's.
    """

    recipe: str
    metric: str
    address: str
    measured: str
    figures: tuple[WhyFigure, ...]
    training: tuple[WhyTraining, ...]
    training_set: WhyTrainingSet | None
    missing: tuple[str, ...]
    newer: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The form that `--json` prints."""
        return asdict(self)


def why_metric(store: Store, recipe: str, metric: str, *, evaluation_set: str | None = None) -> Why:
    """Explain the metric of a recipe's newest measured version, on one evaluation set or on all.

    Raises `ConfigError` for a recipe that is not measured and for an unknown metric or set, with the nearest names.

    Example:
        >>> [figure] = why_metric(factory.store, "sheared", "r1_i2t").figures
        >>> figure.value, figure.place, [rival.recipe for rival in figure.rivals]
        (1.0, 1, ['raw-only'])
    """
    with open_catalog(store) as catalog:
        measured = all_measurements(catalog)
        if recipe not in measured:
            known = list(measured)
            raise ConfigError(
                f'No recipe "{recipe}" has been measured; measured recipes: {", ".join(known) or "none yet"}'
                f"{nearest(recipe, known)}."
            )
        address = measured[recipe][0]
        figures = figures_of({name: each for name, (_, each) in measured.items()}, recipe, metric, evaluation_set)
        newer = _newer(catalog, address)
    chain = _Chain(store)
    metrics = chain.read(address)
    inputs = metrics.inputs if metrics is not None else []
    trained = [chain.read(each.address) for each in inputs if each.kind in _TRAINED]
    checkpoints = [manifest for manifest in trained if manifest is not None]
    return Why(
        recipe=recipe,
        metric=metric,
        address=address,
        measured=metrics.started if metrics is not None else "",
        figures=tuple(figures),
        training=tuple(training_of(manifest) for manifest in checkpoints),
        training_set=_training_set(chain, checkpoints),
        missing=tuple(chain.missing),
        newer=tuple(newer),
    )


class _Chain:
    """Reads manifests on the way back, and records what is gone or damaged."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.missing: list[str] = []

    def read(self, address: str) -> Manifest | None:
        """The manifest at an address."""
        try:
            artifact = self.store.read(address)
        except StoreError as error:
            self.missing.append(str(error))
            return None
        if artifact is None:
            self.missing.append(f"{address} is gone from the store.")
            return None
        return artifact.manifest

    def input(self, manifest: Manifest | None, beginning: str) -> Manifest | None:
        """The first of an artifact's inputs whose address has this prefix; None where there is none."""
        inputs = manifest.inputs if manifest is not None else []
        address = next((each.address for each in inputs if each.address.startswith(f"{beginning}/")), None)
        return self.read(address) if address is not None else None


def _training_set(chain: _Chain, checkpoints: list[Manifest]) -> WhyTrainingSet | None:
    first = next((manifest for manifest in checkpoints if manifest.kind == "checkpoint"), None)
    manifest = chain.input(first, "training_set")
    if manifest is None:
        return None
    sheared = chain.input(manifest, "sheared_captions")
    steps, captioners = None, {}
    for captioner in manifest.configuration["captioners"]:
        shard = chain.input(sheared, f"sheared/{captioner}")
        captions = chain.input(shard, f"captions/{captioner}")
        steps = shard.configuration["steps"] if shard is not None else steps
        if captions is not None:
            captioners[captioner] = captions.configuration["settings"]
    try:
        return training_set_of(chain.store, manifest, sheared, captioners, steps)
    except StoreError as error:  # its rows are gone or damaged
        chain.missing.append(str(error))
        return None


def _newer(catalog: duckdb.DuckDBPyConnection, address: str) -> list[str]:
    """Notes on newer versions of what a number is based on; a captioner's shards share one note."""
    rows = catalog.execute(
        _BACK
        + """,
        old as (
            select m.kind, m.name, m.label from manifests m join back using (address) where not m.is_latest
        )
        select old.kind, old.name, old.label, epoch(new.started)
        from old join manifests new on new.is_latest and new.kind = old.kind and new.name = old.name
        order by old.kind, old.name
        """,
        [address],
    ).fetchall()
    groups: dict[str, list[tuple[str, float]]] = {}
    for kind, name, label, started in rows:
        key = "/".join([kind, *(name[:-1] if kind in sharded() else name)])
        groups.setdefault(key, []).append((label, started))
    notes = []
    for key, members in groups.items():
        what = members[0][0] if len(members) == 1 else f"{counted(len(members), 'shards')} of {key}"
        made = time_text(max(started for _, started in members))
        notes.append(f"{what}: a newer version was made at {made}; this number is not based on it")
    return notes + _new_fingerprints(catalog, address)


def _new_fingerprints(catalog: duckdb.DuckDBPyConnection, address: str) -> list[str]:
    """Captioners with newer captions under another fingerprint, for example with another prompt."""
    rows = catalog.execute(
        _BACK
        + """,
        used as (
            select distinct m.name[1] as captioner, m.name[2] as fingerprint
            from manifests m join back using (address) where m.kind = 'captions'
        ),
        said as (
            select name[1] as captioner, name[2] as fingerprint, max(started) as started
            from manifests where kind = 'captions' group by all
        )
        select used.captioner, used.fingerprint, new.fingerprint, epoch(new.started)
        from used join said using (captioner, fingerprint) join said new using (captioner)
        where new.started > said.started order by new.started
        """,
        [address],
    ).fetchall()
    return [
        f"captions/{captioner}: newer captions were made at {time_text(started)} with the fingerprint {new}; this "
        f"number is based on {used}"
        for captioner, used, new, started in rows
    ]
