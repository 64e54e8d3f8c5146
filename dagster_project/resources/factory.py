"""The store and the configuration, as a resource."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from caploom.config.factory import Factory
from caploom.stages.graph import Graph
from dagster_project.settings import observe_settings


class FactoryResource(dg.ConfigurableResource):
    """The factory of one YAML file."""

    config_path: str = Field(description="The factory's YAML.")
    seeds: list[int] | None = Field(default=None, description="Overrides the YAML's seeds.")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Before a step's inputs are looked up, make the step depend on the present YAML."""
        if context.instance is not None and context.run is not None:  # a sensor reports it itself
            observe_settings(context.instance, self.open())

    def open(self, run_id: str | None = None) -> Factory:
        """The factory; artifacts made through it record the run."""
        return Factory.from_yaml(Path(self.config_path), seeds=self.seeds, run_id=run_id)

    def graph(self, context: dg.AssetExecutionContext) -> Graph:
        """The graph of the factory for a step; artifacts made through it record the run."""
        return Graph(self.open(context.run.run_id))
