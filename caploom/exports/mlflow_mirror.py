"""Mirrors a measured recipe to MLflow: a run with its parameters, recalls, loss curve and the artifacts behind them.

A copy for people whose tools use MLflow; the store stays the truth. A server that does not answer is reported in one
sentence and stops nothing. The address may contain a password: MLflow's own error messages quote it and are discarded.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caploom.config.factory import Factory
from caploom.config.mlflow import MlflowSettings
from caploom.config.recipes import Recipe
from caploom.stages.checkpoint import FINE_TUNED, FINETUNED_KIND, trainer_of
from caploom.storage.manifest import InputRecord
from caploom.storage.store import Artifact, Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MIRRORS = "caploom.retrieval_metrics"
_AT_ONCE = 500  # metrics in a request, of which MLflow takes 1,000
_LONGEST = 5000  # characters of a parameter or tag

# MLflow would retry seven times, two minutes each. Its usage reports go to a third party, so they are switched off.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_FOLDER = {"MLFLOW_ALLOW_FILE_STORE": "true"}
_TALKATIVE = ("mlflow", "urllib3", "alembic")  # they log addresses, with any password in them

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mirrored:
    """The outcome of mirroring a run.

    Attributes:
        run_id: MLflow's run; None when there is none.
        again: it was mirrored before, and nothing was written.
        problem: the sentence that was logged as a warning, when it could not be mirrored.
    """

    run_id: str | None
    again: bool = False
    problem: str | None = None


def mirror_metrics(
    factory: Factory, recipe: Recipe, metrics: Artifact, *, report: Artifact | None = None
) -> Mirrored | None:
    """Mirror a recipe's metrics, unless this very artifact is mirrored; None where the YAML has no `mlflow`.

    Its manifest and, where given, the report's files are uploaded too. Never raises for MLflow's errors.
    """
    settings = factory.config.mlflow
    if settings is None:
        return None
    try:
        with _patient_and_silent(settings):
            return _mirror(factory.store, settings, recipe, metrics, report)
    except ImportError:
        why = "the extra is not installed (pip install 'caploom[mlflow]')"
    except Exception as error:  # noqa: BLE001  (MLflow passes on what its stores raise; a mirror must not stop a measurement)
        why = f"it does not answer as MLflow does ({_kind(error)})"
    problem = (
        f"The metrics of {recipe.name} were not mirrored to MLflow at {settings.shown}: {why}; run it again later."
    )
    _LOG.warning(problem)
    return Mirrored(None, problem=problem)


def _mirror(
    store: Store, settings: MlflowSettings, recipe: Recipe, metrics: Artifact, report: Artifact | None
) -> Mirrored:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=settings.tracking_uri.get_secret_value())
    found = client.get_experiment_by_name(settings.experiment)
    experiment = (
        found.experiment_id
        if found is not None
        else client.create_experiment(settings.experiment, artifact_location=settings.files_beside)
    )
    wanted = f"tags.`{_MIRRORS}` = '{metrics.manifest.address}'"
    for run in client.search_runs([experiment], filter_string=wanted):
        if run.info.status == "FINISHED":
            return Mirrored(run.info.run_id, again=True)
        client.delete_run(run.info.run_id)  # left half written
    started = int(time.time() * 1000)
    run = client.create_run(experiment, run_name=recipe.name, tags=_tags(store, recipe, metrics), start_time=started)
    _log(client, run.info.run_id, store, recipe, metrics)
    client.log_artifact(run.info.run_id, str(metrics.manifest_path))
    if report is not None:
        client.log_artifacts(run.info.run_id, str(report.folder), "ablation_report")
    client.set_terminated(run.info.run_id)
    return Mirrored(run.info.run_id)


def _log(client: "MlflowClient", run_id: str, store: Store, recipe: Recipe, metrics: Artifact) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    values = [Metric(name, value, now, 0) for name, value in measured(metrics).items()]
    values += [Metric(name, loss, now, step) for name, step, loss in _losses(store, metrics)]
    client.log_batch(run_id, params=[Param(name, text[:_LONGEST]) for name, text in parameters(recipe).items()])
    for start in range(0, len(values), _AT_ONCE):
        client.log_batch(run_id, metrics=values[start : start + _AT_ONCE])


def parameters(recipe: Recipe) -> dict[str, str]:
    """A recipe's settings, under the names by which MLflow compares runs."""
    trainer = trainer_of(recipe).fingerprinted()
    return {
        "captioners": ", ".join(recipe.captioners) or "raw only",
        "n_captioners": str(len(recipe.captioners)),
        "shear": recipe.shear,
        "mix": json.dumps(recipe.mix.model_dump(mode="json", exclude_none=True)),
        "filters": json.dumps([step.model_dump(mode="json") for step in recipe.filters]),
        "seed": str(recipe.seed),
        **{f"trainer.{key}": str(value) for key, value in trainer.items()},
        **({"target_set": recipe.finetune.target_set} if recipe.finetune is not None else {}),
    }


def measured(metrics: Artifact) -> dict[str, float]:
    """Every figure of every measurement, such as `zero-shot/scenes/cosine/image_to_text/recall_at_1`."""
    found: dict[str, float] = {}
    for each in metrics.manifest.summary["measurements"]:
        prefix = "/".join(str(each[key]) for key in ("stage", "evaluation_set", "scoring") if each.get(key))
        found.update(_figures(prefix, each))
    return found


def _figures(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        name = f"{prefix}/{key}".replace("@", "_at_")
        if isinstance(value, dict):
            yield from _figures(name, value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def _losses(store: Store, metrics: Artifact) -> Iterator[tuple[str, int, float]]:
    """The loss curve of each stage: its name, step and loss."""
    for record in metrics.manifest.inputs:
        checkpoint = store.read(record.address)
        if checkpoint is not None and "losses" in checkpoint.manifest.summary:
            name = f"{FINE_TUNED}/loss" if checkpoint.manifest.kind == FINETUNED_KIND else "loss"
            yield from ((name, int(step), float(loss)) for step, loss in checkpoint.manifest.summary["losses"])


def _tags(store: Store, recipe: Recipe, metrics: Artifact) -> dict[str, str]:
    """The addresses of the recipe's artifacts, and the fingerprints of its captioners."""
    tags = {
        _MIRRORS: metrics.manifest.address,
        "caploom.data_version": metrics.data_version,
        "caploom.version": metrics.manifest.caploom_version,
        "caploom.recipe": recipe.base,
    }
    waiting = list(metrics.manifest.inputs)
    while waiting:
        artifact = store.read(waiting.pop(0).address)
        if artifact is None:
            continue
        manifest = artifact.manifest
        if manifest.kind == "captions":
            name = manifest.configuration["captioner"]
            tags[f"caploom.captioner.{name}"] = manifest.configuration["captioner_fingerprint"]
        elif manifest.kind == "sheared":
            waiting += manifest.inputs[:1]
        else:
            key = f"caploom.{manifest.kind}"
            tags[key] = f"{tags[key]}, {manifest.address}"[:_LONGEST] if key in tags else manifest.address
            waiting += _one_a_captioner(manifest.inputs)
    return tags


def _one_a_captioner(inputs: Sequence[InputRecord]) -> list[InputRecord]:
    """The inputs that lead to captioners, one shard per captioner."""
    kept: dict[tuple[str, str], InputRecord] = {}
    for record in inputs:
        kind, name = record.address.split("/")[:2]
        if kind != "raw_pairs":
            kept.setdefault((kind, name), record)
    return list(kept.values())


@contextmanager
def _patient_and_silent(settings: MlflowSettings) -> Iterator[None]:
    """Short waits unless the user set them, and silence from loggers that would log addresses."""
    wanted = {**_PATIENCE, **(_FOLDER if settings.is_folder else {})}
    added = {key: value for key, value in wanted.items() if key not in os.environ}
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    os.environ.update(added)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for key in added:
            del os.environ[key]


def _kind(error: Exception) -> str:
    """The kind of an error in a word, which contains no secret."""
    code = getattr(error, "error_code", None)
    return f"{type(error).__name__}{f' {code}' if isinstance(code, str) else ''}"
