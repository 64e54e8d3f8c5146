"""The GPU resource that trains and measures models."""

from pathlib import Path

import dagster as dg

from caploom.common.executors import RayExecutor
from caploom.common.progress import Progress, StageBar
from caploom.config.factory_config import FactoryConfig
from caploom.config.recipes import Recipe
from caploom.report.plots import loss_curve
from caploom.stages.checkpoint import FINE_TUNED, ZERO_SHOT, finetune_recipe, train_recipe
from caploom.stages.graph import Graph
from caploom.stages.retrieval_metrics import measure_recipe
from caploom.stages.target_set import target_set
from caploom.storage.store import Artifact
from caploom.training.job import TrainingEvent, TrainingJob, TrainingResult
from caploom.training.launch import Report, launch_training
from caploom.training.on_ray import launch_on_ray
from dagster_project.markdown import picture
from dagster_project.ray_cluster import ray_of_the_run

_PROCESS = "dagster_project.training_process"
_MESSAGES = "messages.jsonl"
_OBSERVATIONS = 10  # of a training, so that a long one does not fill the event log


class Trainer(dg.ConfigurableResource):
    """Trains in separate processes; Dagster Pipes brings their reports into the UI."""

    def train(
        self, context: dg.AssetExecutionContext, graph: Graph, recipe: Recipe, bar: StageBar
    ) -> dict[str, Artifact]:
        """The recipe's checkpoints by their stage; see `train_recipe` and `finetune_recipe`."""
        if recipe.finetune is not None:
            target_set(graph, recipe.finetune.target_set)  # faults of it show before hours of training
        launch = _PipesLaunch(context, graph.config)
        trained = {ZERO_SHOT: train_recipe(graph, recipe, _report(bar.part()), launch=launch)}
        if recipe.finetune is not None:
            launch = _PipesLaunch(context, graph.config)
            trained[FINE_TUNED] = finetune_recipe(graph, recipe, _report(bar.part()), launch=launch)
        return trained

    def measure(self, graph: Graph, recipe: Recipe, bar: StageBar) -> Artifact:
        """The recipe's retrieval metrics; see `measure_recipe`."""
        return measure_recipe(graph, recipe, bar)


def _report(progress: Progress) -> Report:
    return lambda event: progress(event.step, event.steps)


class _PipesLaunch:
    """Launches the trainer in a Pipes session: its log lines stream into the run, its curve into observations."""

    def __init__(self, context: dg.AssetExecutionContext, config: FactoryConfig) -> None:
        self._context, self._executor = context, config.executor
        self._curve: list[tuple[int, float]] = []

    def __call__(self, job: TrainingJob, folder: Path, report: Report) -> TrainingResult:
        def observe(event: TrainingEvent) -> None:
            report(event)
            self._observe(event)

        cluster = self._executor if job.settings.nodes > 1 and isinstance(self._executor, RayExecutor) else None
        # The reporting process may be on another node: it writes to a folder that all of them share.
        reader = dg.PipesFileMessageReader(str(folder / _MESSAGES)) if cluster else dg.PipesTempFileMessageReader()
        with dg.open_pipes_session(self._context, dg.PipesEnvContextInjector(), reader) as session:
            environment = session.get_bootstrap_env_vars()
            if cluster is None:
                return launch_training(job, folder, observe, module=_PROCESS, environment=environment)
            with ray_of_the_run(cluster, self._context):
                return launch_on_ray(job, folder, observe, executor=cluster, module=_PROCESS, environment=environment)

    def _observe(self, event: TrainingEvent) -> None:
        self._curve.append((event.step, event.loss))
        if len(self._curve) < 2 or event.step * _OBSERVATIONS // event.steps == (
            self._curve[-2][0] * _OBSERVATIONS // event.steps
        ):
            return
        self._context.log_event(
            dg.AssetObservation(
                asset_key=self._context.asset_key,
                partition=self._context.partition_key,
                metadata={
                    "loss": event.loss,
                    "step": event.step,
                    "samples_per_second": event.samples_per_second,
                    "data_wait_share": event.data_wait_share,
                    "learning_rate": event.learning_rate,
                    "loss curve": picture(
                        loss_curve(self._curve, f"Loss: {self._context.partition_key}"), "loss curve"
                    ),
                },
            )
        )
