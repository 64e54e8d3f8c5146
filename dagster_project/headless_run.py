"""A run of the whole graph in one process: a factory's jobs one after another."""

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

import click
import dagster as dg

from caploom.catalog.query import printable
from caploom.config.factory import Factory
from caploom.config.factory_config import FactoryConfig
from caploom.errors import CaploomError
from caploom.inbox.scan import take_everything
from caploom.report.make import ABLATION_REPORT
from caploom.stages.shards import shard_names
from caploom.stages.sheared import SHEARED
from caploom.stages.training_set import TRAINING_SET
from dagster_project.assets.dependencies import FactoryAssets
from dagster_project.instance import instance_home, open_instance
from dagster_project.jobs import CAPTION_SHARDS, REPORT, RUN_RECIPE
from dagster_project.layout import RECIPE, asset_key, partition_axis
from dagster_project.left_over_runs import HEADLESS_TAG, only_headless_run
from dagster_project.partitions import SHARD, shard_range_tags
from dagster_project.sharding import cut_new_shards
from dagster_project.tags import captioner_tags, recipe_tags

# Dagster's own log has a line per step state, but a person at a terminal needs the progress bars and the failures.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class HeadlessRun:
    """Runs a factory's jobs one after another and collects what failed."""

    def __init__(
        self,
        config: FactoryConfig,
        assets: FactoryAssets,
        definitions: dg.Definitions,
        *,
        until: str | None = None,
        instance: dg.DagsterInstance | None = None,
        say: Callable[[str], None] = click.echo,
    ) -> None:
        """Open the factory; `instance` by default is its own, and `say` is told what became of the inbox.

        Raises `ConfigError` when `until` is none of its steps.
        """
        self._config, self._assets, self._definitions, self._say = config, assets, definitions, say
        self._steps = assets.stages if until is None else assets.back_from(until)
        self._instance = instance or open_instance(config)
        self.factory = Factory.from_config(config)
        self.failures: list[str] = []

    @property
    def gives_away(self) -> bool:
        """Whether training sets are among what it makes."""
        return TRAINING_SET in self._steps

    @property
    def reports(self) -> bool:
        """Whether the report is among what it makes."""
        return ABLATION_REPORT in self._steps

    def run(self) -> None:
        """The whole graph, or as far as the last step and what that needs, in order."""
        with only_headless_run(instance_home(self._config), self._instance):
            self._caption()
            self._experiment()

    def run_captions(self) -> list[str]:
        """Only the first stages: shard, ingest and caption; returns the names of all shards."""
        with only_headless_run(instance_home(self._config), self._instance):
            return self._caption()

    def _caption(self) -> list[str]:
        self._add_shards()
        shards = shard_names(self.factory)
        if not shards:
            raise CaploomError(
                "There are no rows, so there is nothing to caption; check `pairs` or `inbox` in the YAML."
            )
        for first, last in self._ranges(set(shards)):
            self._execute(CAPTION_SHARDS, SHARD, tags=shard_range_tags(first, last))
        return shards

    def _experiment(self) -> None:
        sheared: set[tuple[str, str]] = set()
        for recipe in self._config.expanded_recipes():
            for captioner in recipe.captioners if SHEARED in self._steps else ():
                if (captioner, recipe.shear) not in sheared:  # recipes with equal shears share the result
                    self._shear(captioner, recipe.shear)
                sheared.add((captioner, recipe.shear))
            self._execute(RUN_RECIPE, RECIPE, partition_key=recipe.name, tags=recipe_tags(recipe))
        self._execute(REPORT, None)

    def _ranges(self, shards: set[str]) -> Iterator[tuple[str, str]]:
        """Blocks of these shards in the order in which their partitions were added: a run takes a range of those."""
        keys = self._instance.get_dynamic_partitions(SHARD)
        for ours, block in groupby(keys, shards.__contains__):
            if ours:
                names = list(block)
                yield names[0], names[-1]

    def _add_shards(self) -> None:
        for scan in take_everything(self.factory):
            for sentence in scan.messages:
                self._say(printable(sentence))
        self._instance.add_dynamic_partitions(SHARD, cut_new_shards(self.factory, self._instance))

    def _execute(
        self, job: str, axis: str | None, *, partition_key: str | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        """Run a job's assets, which are those of the steps with this axis; nothing where no such step is wanted."""
        steps = [stage for stage in self._steps if partition_axis(stage) == axis]
        if not steps:
            return
        result = self._definitions.resolve_job_def(job).execute_in_process(
            asset_selection=[key for stage in steps for key in self._assets.keys(stage).values()],
            instance=self._instance,
            partition_key=partition_key,
            tags={**(tags or {}), HEADLESS_TAG: "true"},
            run_config=_QUIET,
            raise_on_error=False,
        )
        self._collect(f"{job} [{partition_key}]" if partition_key else job, result)

    def _shear(self, captioner: str, shear: str) -> None:
        key = asset_key(SHEARED, captioner)
        result = dg.materialize(
            [each for each in self._definitions.assets or [] if isinstance(each, dg.AssetsDefinition | dg.AssetSpec)],
            selection=[key],
            partition_key=shear,
            instance=self._instance,
            resources=self._definitions.resources,
            tags={"shear": shear, **captioner_tags([captioner]), HEADLESS_TAG: "true"},
            run_config=_QUIET,
            raise_on_error=False,
        )
        self._collect(f"{key.to_user_string()} [{shear}]", result)

    def _collect(self, where: str, result: dg.ExecuteInProcessResult) -> None:
        """Remember what failed; raises `CaploomError` when the run was interrupted."""
        failed = [event for event in result.all_events if event.is_step_failure]
        if any(_was_interrupted(event) for event in failed):
            # Dagster ends only the step, but a person who interrupts the run also means the following recipes.
            raise CaploomError(f"{where}: interrupted. Run it again: finished artifacts are kept.")
        self.failures += [f"{where}: {event.step_key}: {_reason(event)}" for event in failed]
        if not result.success and not failed:
            self.failures.append(f"{where}: the run failed outside its steps; see run {result.run_id} in the UI.")


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error
    return error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__


def _reason(event: dg.DagsterEvent) -> str:
    """Why a step failed: a user's mistake as its message, a bug with its traceback."""
    data: Any = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    return str(data.error_display_string) if data.error else "it failed without a reason"
