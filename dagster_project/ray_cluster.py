"""The Ray cluster of a run, connected by dagster-ray: its tags and Dagster's variables go to the cluster with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from caploom.common.executors import RayExecutor
from caploom.common.ray_cluster import connecting, init_options


@contextmanager
def ray_of_the_run(executor: RayExecutor, context: dg.AssetExecutionContext) -> Iterator[None]:
    """Connected to the YAML's cluster while the block lasts; raises `ClusterError` like `connected`."""
    with connecting(executor) as ray:
        resource = _resource(executor)
        resource.connect(context)
    try:
        yield
    finally:
        ray.shutdown()


def _resource(executor: RayExecutor) -> Any:
    from dagster_ray import LocalRay

    class Cluster(LocalRay):
        """An existing cluster, or one of this machine alone."""

        @property
        def ray_address(self) -> Any:
            return executor.address or "local"

    return Cluster(ray_init_options={key: each for key, each in init_options(executor).items() if key != "address"})
