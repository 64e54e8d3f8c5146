"""A training on several nodes of a Ray cluster, each with an actor that runs its `accelerate launch`.

The nodes share the training's folder (the store's, or its mirror's): its job, its states, its events. Ray places the
launchers, one per node, and reports lost ones; the training itself is the launchers' affair.
"""

import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from caploom.common.executors import RayExecutor
from caploom.common.ray_cluster import check_nodes, connected
from caploom.errors import ClusterError, TrainingError
from caploom.training.job import TrainingJob, TrainingResult
from caploom.training.launch import POLL_INTERVAL, EventReader, Report, failure_message, progress_text, write_job
from caploom.training.node import Node, started
from caploom.training.process import ERROR, EVENTS, OWNER, RESULT

_PLACING_SECONDS, _LOOKING_SECONDS = 120.0, 2.0
_ENDING_SECONDS = 30.0  # seconds for the other nodes to end after one was lost; a trainer notices within a second


def launch_on_ray(
    job: TrainingJob,
    folder: Path,
    report: Report,
    *,
    executor: RayExecutor,
    module: str = "caploom.training.process",
    environment: Mapping[str, str] | None = None,
) -> TrainingResult:
    """Train on `job.settings.nodes` nodes; otherwise like `launch_training`.

    Raises `ClusterError` when the cluster has fewer nodes, and `TrainingError` when one of them ends or is lost: the
    others end too, and the next attempt continues from the last checkpoint.
    """
    write_job(job, folder)
    reader = EventReader(folder / EVENTS, report)
    with connected(executor) as ray, _launchers(ray, job, executor) as launchers:
        address, port = ray.get(launchers[0].address.remote())
        nodes = [Node(rank, len(launchers), address, port) for rank in range(len(launchers))]
        variables = dict(environment or {})
        running = {
            launcher.run.remote(job, folder, node, module, variables): node
            for launcher, node in zip(launchers, nodes, strict=True)
        }
        failed = None
        while running and failed is None:
            done, _ = ray.wait(list(running), timeout=POLL_INTERVAL)
            reader.read()
            for each in done:
                failed = failed or _fault(ray, each, running.pop(each), folder, reader)
        if failed is not None:
            # Trainers of every node read it, see that they no longer own it, and end.
            (folder / OWNER).write_text(uuid.uuid4().hex, encoding="utf-8")
            ray.wait(list(running), num_returns=len(running), timeout=_ENDING_SECONDS) if running else None
            raise failed
    return TrainingResult.model_validate_json((folder / RESULT).read_text(encoding="utf-8"))


def _fault(ray: ModuleType, done: Any, node: Node, folder: Path, reader: EventReader) -> TrainingError | None:
    """Why a node's part failed; None if it succeeded."""
    who = f"Node {node.rank + 1} of {node.count}"
    try:
        status = ray.get(done)
    except ray.exceptions.RayError as error:
        reader.read()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return TrainingError(
            f"{who} was lost {progress_text(reader.last)} ({lines[0].rstrip('.')}). Run it again: it continues from "
            "its last checkpoint."
        )
    if status == 0:
        return None
    # A node whose peer is gone fails too, before Ray reports the peer: the first node's own error comes first.
    deadline = time.monotonic() + 1.0
    while not (folder / ERROR).is_file() and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    return TrainingError(failure_message(folder, who, folder / node.log, status, reader.last))


@contextmanager
def _launchers(ray: ModuleType, job: TrainingJob, executor: RayExecutor) -> Iterator[Sequence[Any]]:
    """An actor on each of `count` nodes, whose CPUs and GPUs are reserved for the block."""
    count = job.settings.nodes
    here = job.settings.processes // count
    held = {"CPU": here * executor.cpus_per_worker, "GPU": float(here) if executor.gpus_per_worker else 0.0}
    check_nodes(ray, count, held["CPU"], held["GPU"])
    bundle = {kind: amount for kind, amount in held.items() if amount}
    group = ray.util.placement_group([bundle] * count, strategy="STRICT_SPREAD")
    try:
        deadline = time.monotonic() + _PLACING_SECONDS
        while not group.wait(_LOOKING_SECONDS):
            check_nodes(ray, count, held["CPU"], held["GPU"])  # a node that has just died is listed for a while
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"trainer: {count} nodes with {held['CPU']:g} CPUs and {held['GPU']:g} GPUs each were not free "
                    f"within {_PLACING_SECONDS:.0f} s; run it when others have released them."
                )
        placed = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        actor = ray.remote(_Launcher)
        yield [
            actor.options(
                num_cpus=held["CPU"],
                num_gpus=held["GPU"],
                scheduling_strategy=placed(placement_group=group, placement_group_bundle_index=rank),
            ).remote()
            for rank in range(count)
        ]
    finally:
        ray.util.remove_placement_group(group)  # and with it the actors


class _Launcher:
    """The actor on a node."""

    def address(self) -> tuple[str, int]:
        """The address at which the nodes meet, if this is the first."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def run(self, job: TrainingJob, folder: Path, node: Node, module: str, environment: Mapping[str, str]) -> int:
        """This node's part; the exit status of its launcher."""
        folder.mkdir(parents=True, exist_ok=True)
        with started(job, folder, node, module=module, environment=environment) as process:
            return process.wait()
