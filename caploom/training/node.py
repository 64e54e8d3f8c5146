"""One machine's part of a training: its `accelerate launch`, configured, started as processes of its own, and ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from caploom.training.job import TrainingJob

_PATIENCE = 20.0  # seconds from SIGTERM to SIGKILL


@dataclass(frozen=True)
class Node:
    """A machine among those of one training.

    Attributes:
        rank: from 0; the first one's first process writes.
        count: of all machines.
        address: of the first one, where its processes are met.
        port: there; 0 has one machine alone look for a free one.
        patience: seconds until a node gives up meeting the others.
    """

    rank: int = 0
    count: int = 1
    address: str = ""
    port: int = 0
    patience: int = 120

    @property
    def log(self) -> str:
        """The name of the file that takes what its processes print."""
        return "trainer.log" if self.count == 1 else f"trainer-{self.rank}.log"


@contextmanager
def started(
    job: TrainingJob, folder: Path, node: Node, *, module: str, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """This machine's launcher, running `module` on `folder`; nobody of its processes is left behind by the block."""
    surroundings = {**os.environ, **_environment(job), **(environment or {})}
    with (folder / node.log).open("wb") as log:
        process = subprocess.Popen(
            _command(job, folder, module, surroundings, node),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=surroundings,
            start_new_session=True,  # a group of its own, which can be ended as one
        )
        try:
            yield process
        finally:
            _end(process)


def _command(job: TrainingJob, folder: Path, module: str, environment: Mapping[str, str], node: Node) -> list[str]:
    processes = job.settings.processes
    # A file of its own, so that the user's, which may say anything (DeepSpeed, FSDP), is not taken.
    config = folder / ("accelerate.json" if node.count == 1 else f"accelerate-{node.rank}.json")
    settings = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if processes > 1 else "NO",
        "num_machines": node.count,
        "num_processes": processes,
        "mixed_precision": "no",
        "dynamo_backend": "NO",
        "use_cpu": False,
        "machine_rank": node.rank,
        "main_training_function": "main",
    }
    if node.count > 1:
        # `static`: each node knows its rank, and the first one is where all meet.
        settings |= {"main_process_ip": node.address, "main_process_port": node.port, "rdzv_backend": "static"}
        settings |= {"same_network": True}
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--num_processes", str(processes), "--num_machines", str(node.count), "--mixed_precision", "no"]
    command += ["--dynamo_backend", "no", "--main_process_port", str(node.port)]
    if node.count > 1:
        command += ["--machine_rank", str(node.rank), "--main_process_ip", node.address, "--same_network"]
        command += ["--rdzv_backend", "static", "--rdzv_conf", f"timeout={node.patience}"]
    here = processes // node.count
    if "OMP_NUM_THREADS" not in environment:
        command += ["--num_cpu_threads_per_process", str(max(1, (os.cpu_count() or 1) // here))]
    if processes > 1:
        command.append("--multi_gpu")  # whatever the device: it is what starts several processes
    return [*command, "-m", module, str(folder)]


def _environment(job: TrainingJob) -> dict[str, str]:
    if job.settings.processes == 1:
        return {}
    from caploom.training.clip_model import resolve_device  # torch, for a training that takes several devices anyway

    on_cpu = resolve_device(job.settings.device).type == "cpu"
    return {"ACCELERATE_USE_CPU": "true"} if on_cpu else {}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Leave nobody of the process's group behind."""
    for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, None)):
        if process.poll() is not None:
            break
        os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the launcher started and did not take along
