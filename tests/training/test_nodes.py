"""A training on several nodes: each has an `accelerate launch` of its own, and together they train as one process."""

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from training_files import TrainingFiles, train_files, write_tiny_architecture

from caploom.common.executors import RayExecutor
from caploom.errors import ClusterError, TrainingError
from caploom.training.job import TrainingJob
from caploom.training.launch import claimed, write_job
from caploom.training.node import Node, started
from caploom.training.on_ray import launch_on_ray
from caploom.training.process import RESULT
from caploom.training.settings import ClipTrainerSettings

torch.set_num_threads(1)
pytestmark = pytest.mark.slow

STEPS, BATCH, ROWS = 6, 8, 24  # two epochs
PER_EPOCH = ROWS // BATCH
RECORDING = {"module": "recording_process", "environment": {"PYTHONPATH": str(Path(__file__).parent)}}


@pytest.fixture
def job(tmp_path):
    """A training on two nodes with two processes each."""
    settings = {"model": str(write_tiny_architecture(tmp_path)), "steps": STEPS, "batch_size": BATCH}
    settings |= {"learning_rate": 3e-3, "device": "cpu", "processes": 4, "nodes": 2, "save_every": 2}
    (tmp_path / "out").mkdir()
    return TrainingJob(
        training_set=[TrainingFiles(tmp_path).colours_shard()],
        settings=ClipTrainerSettings.model_validate(settings),
        seed=3,
        out=tmp_path / "out",
        state=tmp_path / "work" / "state",
    )


def run_nodes(job, folder):
    """Both nodes side by side on this machine, as two machines would be; their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    statuses = {}

    def run(rank):
        with started(job, folder, Node(rank, 2, "127.0.0.1", port), **RECORDING) as process:
            statuses[rank] = process.wait(120)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def check_rows(folder, epochs=range(2)):
    """Every process was given other rows, and all of them every row of an epoch once."""
    given = [json.loads((folder / f"rows-{rank}.json").read_text()) for rank in range(4)]
    for epoch in epochs:
        steps = range(epoch * PER_EPOCH, (epoch + 1) * PER_EPOCH)
        parts = [[row for step in steps for row in rows[str(step)]] for rows in given]
        assert [len(part) for part in parts] == [ROWS // 4] * 4
        assert Counter(row for part in parts for row in part) == Counter(range(ROWS))


def check_weights(job, folder, within=3e-5):
    """They are those of one process, within what sums in another order differ by."""
    folder.mkdir()
    alone = job.settings.model_copy(update={"processes": 1, "nodes": 1})
    train_files(job.training_set, alone, seed=job.seed, out=folder)
    expected, made = load_file(folder / "model.safetensors"), load_file(job.out / "model.safetensors")
    assert made.keys() == expected.keys()
    for key, weight in made.items():
        torch.testing.assert_close(weight, expected[key], rtol=0, atol=within, msg=key)


def test_two_nodes_of_two_processes_see_each_row_once_an_epoch_and_train_as_one(job, tmp_path):
    folder = tmp_path / "work"
    with claimed(folder, "test"):
        write_job(job, folder)
        assert run_nodes(job, folder) == {0: 0, 1: 0}
        assert json.loads((folder / RESULT).read_text())["processes"] == 4
    check_rows(folder)
    check_weights(job, tmp_path / "alone")
    first, second = (json.loads((folder / f"accelerate-{rank}.json").read_text()) for rank in range(2))
    assert first.pop("machine_rank") == 0
    assert second.pop("machine_rank") == 1
    assert first == second
    assert (first["num_machines"], first["num_processes"], first["main_process_ip"]) == (2, 4, "127.0.0.1")


def test_a_node_that_does_not_meet_the_others_gives_up_and_says_where_it_looked(job, tmp_path):
    folder = tmp_path / "work"
    with claimed(folder, "test"), socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        port = closed.getsockname()[1]
        write_job(job, folder)
        with started(job, folder, Node(1, 2, "127.0.0.1", port, patience=3), **RECORDING) as process:
            assert process.wait(60) != 0
    assert f"127.0.0.1, {port}" in (folder / "trainer-1.log").read_text()


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with two CPUs each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 80_000_000, "include_dashboard": False}
    # A dead node is noticed in seconds rather than in half a minute.
    noticing = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    made = Cluster(initialize_head=True, head_node_args={**node, "_system_config": noticing})
    made.second = made.add_node(**node)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def executor(cluster):
    return RayExecutor(kind="ray", address=cluster.address, gpus_per_worker=0)


def test_on_ray_a_lost_node_ends_all_and_the_next_attempt_goes_on(job, tmp_path, cluster, executor):
    folder, events = tmp_path / "work", []
    changes = {"steps": 90, "save_every": 10}
    job = job.model_copy(update={"settings": job.settings.model_copy(update=changes)})

    def lose(event):
        events.append(event)
        if event.step > 15 and cluster.second is not None:
            cluster.remove_node(cluster.second, allow_graceful=False)
            cluster.second = None
            # Of a machine that is gone no process is left; here they have the same machine as the others.
            for pid in trainers(folder, "--machine_rank", "1"):
                os.killpg(pid, signal.SIGKILL)

    began = time.monotonic()
    lost = pytest.raises(TrainingError, match=r"Node \d of 2 .* continues from its last checkpoint")
    with claimed(folder, "test"), lost:
        launch_on_ray(job, folder, lose, executor=executor, **RECORDING)
    assert time.monotonic() - began < 90
    assert events[-1].step < 90
    deadline = time.monotonic() + 15
    while (left := trainers(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "a trainer goes on without the others"

    with claimed(folder, "test"), pytest.raises(ClusterError, match=r"2 nodes with 2 CPUs .* 1 nodes 1 have them"):
        launch_on_ray(job, folder, events.append, executor=executor, **RECORDING)

    cluster.second = cluster.add_node(num_cpus=2, object_store_memory=80_000_000)
    cluster.wait_for_nodes()
    with claimed(folder, "test"):
        result = launch_on_ray(job, folder, events.append, executor=executor, **RECORDING)
    assert result.resumed_from >= 10
    assert (result.processes, events[-1].step) == (4, 90)
    check_rows(folder, epochs=range(-(-result.resumed_from // 3), 30))
    check_weights(job, tmp_path / "alone", within=2e-3)


def trainers(folder, *words):
    """The processes that train in a folder, with these words in their commands."""
    commands = {each.pid: each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])}
    wanted = {"recording_process", str(folder), *words}
    return [pid for pid, command in commands.items() if wanted <= set(command)]
