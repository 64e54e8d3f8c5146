"""One machine's part of a training: starts and ends its process, or its `accelerate launch` of several.

They are a process group of their own.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from caploom.common.child_processes import child_environment
from caploom.training.job import TrainingJob

_PATIENCE = 20.0  # seconds from SIGTERM to SIGKILL


@dataclass(frozen=True)
class Node:
    """A machine among those of one training.

    Attributes:
        rank: from 0; the first process of the first machine writes.
        count: number of machines.
        address: the first machine's, where all processes meet.
        port: the port there; with 0 a single machine chooses a free one.
        patience: seconds until a node stops waiting for the others.
    """

    rank: int = 0
    count: int = 1
    address: str = ""
    port: int = 0
    patience: int = 120

    @property
    def log(self) -> str:
        """The name of the file for its processes' output."""
        return "trainer.log" if self.count == 1 else f"trainer-{self.rank}.log"


@contextmanager
def started(
    job: TrainingJob, folder: Path, node: Node, *, module: str, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """This machine's launcher, running `module` on `folder`; none of its processes outlives the block."""
    surroundings = child_environment({**os.environ, **_environment(job), **(environment or {})})
    with (folder / node.log).open("wb") as log:
        process = subprocess.Popen(
            _command(job, folder, module, surroundings, node),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=surroundings,
            start_new_session=True,  # a separate group, which can be ended as a whole
        )
        try:
            yield process
        finally:
            _end(process)


def _command(job: TrainingJob, folder: Path, module: str, environment: Mapping[str, str], node: Node) -> list[str]:
    trainer = ["-m", module, str(folder)]
    if job.settings.processes == 1:
        return [sys.executable, *trainer]  # nothing is left to launch, and importing accelerate takes seconds
    config = folder / ("accelerate.json" if node.count == 1 else f"accelerate-{node.rank}.json")
    return [sys.executable, "-m", "accelerate.commands.launch", *_options(job, config, environment, node), *trainer]


def _options(job: TrainingJob, config: Path, environment: Mapping[str, str], node: Node) -> list[str]:
    processes = job.settings.processes
    settings = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",
        "num_machines": node.count,
        "num_processes": processes,
        "mixed_precision": "no",
        "dynamo_backend": "NO",
        "use_cpu": False,
        "machine_rank": node.rank,
        "main_training_function": "main",
    }
    if node.count > 1:
        # `static`: each node knows its rank, and all meet at the first one.
        settings |= {"main_process_ip": node.address, "main_process_port": node.port, "rdzv_backend": "static"}
        settings |= {"same_network": True}
    # A separate file, so that the user's, which may contain anything (DeepSpeed, FSDP), is not used.
    config.write_text(json.dumps(settings), encoding="utf-8")
    options = ["--config_file", str(config)]
    options += ["--num_processes", str(processes), "--num_machines", str(node.count), "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", str(node.port)]
    if node.count > 1:
        options += ["--machine_rank", str(node.rank), "--main_process_ip", node.address, "--same_network"]
        options += ["--rdzv_backend", "static", "--rdzv_conf", f"timeout={node.patience}"]
    if "OMP_NUM_THREADS" not in environment:
        options += ["--num_cpu_threads_per_process", str(max(1, (os.cpu_count() or 1) // (processes // node.count)))]
    return [*options, "--multi_gpu"]  # for any device: this starts several processes


def _environment(job: TrainingJob) -> dict[str, str]:
    if job.settings.processes == 1:
        threads = "OMP_NUM_THREADS"
        return {} if threads in os.environ else {threads: str(os.cpu_count() or 1)}
    from caploom.training.clip_model import (
        resolve_device,
    )  # imports torch, which a training on several devices needs anyway

    on_cpu = resolve_device(job.settings.device).type == "cpu"
    return {"ACCELERATE_USE_CPU": "true"} if on_cpu else {}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Leave no process of the group behind."""
    for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, None)):
        if process.poll() is not None:
            break
        os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # processes that the launcher started and did not end
