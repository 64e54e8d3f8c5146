"""Connects to the Ray cluster that the YAML names; any fault of it becomes one sentence."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from types import ModuleType
from typing import Any

from caploom.common.executors import RayExecutor
from caploom.common.text import first_line
from caploom.errors import ClusterError

_KNOCK_SECONDS = 5.0


@contextmanager
def connected(executor: RayExecutor) -> Iterator[ModuleType]:
    """Ray, connected for as long as the block lasts; an existing connection is used and kept.

    Raises `ClusterError` when Ray is not installed, nothing answers at the address, or the cluster's Ray or Python is
    has another version.
    """
    ray = _ray()
    here = not ray.is_initialized()
    if here:
        with connecting(executor):
            ray.init(**init_options(executor))
    try:
        yield ray
    finally:
        if here:
            ray.shutdown()


@contextmanager
def connecting(executor: RayExecutor) -> Iterator[ModuleType]:
    """Ray, to be connected in the block: a failure to connect is raised as a `ClusterError`."""
    ray = _ray()
    where = executor.address or "this machine"
    try:
        _knock(executor.address)
        yield ray
    except (ConnectionError, OSError) as error:
        raise ClusterError(
            f"{where}: no Ray cluster answers there ({first_line(error).rstrip('.')}); start it or correct "
            "`executor.address`."
        ) from None
    except RuntimeError as error:
        if "ersion" not in str(error):
            raise
        raise ClusterError(
            f"{where}: the cluster's Ray or Python has another version than here ({' '.join(str(error).split())}); "
            "install the same on both sides."
        ) from None


def _knock(address: str | None) -> None:
    """Raise `OSError` when nothing listens at a cluster's address: Ray itself would retry for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()


def init_options(executor: RayExecutor) -> dict[str, Any]:
    """The options of `ray.init`."""
    options: dict[str, Any] = {"address": executor.address, "log_to_driver": False, "logging_level": "warning"}
    if executor.address is None:
        # Ray's CPUs are slots for tasks: a small machine is given as many as were requested.
        cpus = max(os.cpu_count() or 1, ceil(executor.workers * executor.cpus_per_worker) + executor.decoders)
        options |= {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    return options


def _ray() -> ModuleType:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ClusterError(
            f"executor: ray needs a package that is not installed ({error}); pip install 'caploom[ray]'."
        ) from None
    # A Dataset would print progress bars of its own on every terminal.
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def check_workers(ray: ModuleType, executor: RayExecutor) -> None:
    """Raise `ClusterError` when it lacks the GPUs or CPUs for the workers: Ray would wait forever."""
    nodes = _alive(ray)
    most = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("GPU", "CPU")}
    for kind, asked, key in (
        ("GPU", executor.gpus_per_worker, "gpus_per_worker"),
        ("CPU", executor.cpus_per_worker, "cpus_per_worker"),
    ):
        if asked > most[kind]:
            advice = "; 0 captions on CPUs" if kind == "GPU" else ""
            raise ClusterError(
                f"executor: a worker asks for {asked:g} {kind}s and the largest node of the Ray cluster has "
                f"{most[kind]:g}; lower `{key}`{advice}."
            )
        # Workers keep their resources; decoding takes one more CPU.
        needed = executor.workers * asked + (kind == "CPU")
        everywhere = sum(node.get(kind, 0.0) for node in nodes)
        if needed > everywhere:
            for_them = f"{executor.workers} workers" + (" and a task that decodes" if kind == "CPU" else "")
            raise ClusterError(
                f"executor: {for_them} need {needed:g} {kind}s and the Ray cluster has {everywhere:g}; lower `workers` "
                f"or `{key}`."
            )


def check_nodes(ray: ModuleType, count: int, cpus: float, gpus: float) -> None:
    """Raise `ClusterError` when fewer than `count` nodes have that many CPUs and GPUs each."""
    nodes = _alive(ray)
    fit = sum(1 for node in nodes if node.get("CPU", 0.0) >= cpus and node.get("GPU", 0.0) >= gpus)
    if fit < count:
        raise ClusterError(
            f"trainer: {count} nodes with {cpus:g} CPUs and {gpus:g} GPUs each are asked for, and of the Ray cluster's "
            f"{len(nodes)} nodes {fit} have them; lower `nodes` or `processes`, or add nodes."
        )


def _alive(ray: ModuleType) -> list[dict[str, float]]:
    """The resources of each node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
