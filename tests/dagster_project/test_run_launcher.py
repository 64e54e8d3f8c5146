"""The launcher of runs: whether the process that carries a run out is alive."""

import json
import multiprocessing
import socket
import subprocess
import sys
import time

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

HERE = {"host": "localhost", "socket": "/any"}


@pytest.fixture
def instance(dagster_home):
    launcher = {"module": "dagster_project.run_launcher", "class": "WatchedRunLauncher"}
    with dg.instance_for_test(overrides={"run_launcher": launcher}, temp_dir=str(dagster_home)) as made:
        yield made


@pytest.fixture
def of_a_run():
    """A process as the code server starts one for each run."""
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)
    process.start()
    yield process
    process.kill()
    process.join()


def said_of(instance, pid, server=HERE):
    run = instance.create_run_for_job(
        dg.GraphDefinition("nothing").to_job(), tags={GRPC_INFO_TAG: json.dumps(server)} if server else {}
    )
    instance.report_engine_event("Waiting for a place.", run)
    if pid is not None:
        instance.report_engine_event("Started.", run, EngineEventData.in_process(pid))
    return instance.run_launcher.check_run_worker_health(instance.get_run_by_id(run.run_id))


def test_run_is_at_work_until_its_process_was_killed(instance, of_a_run):
    assert instance.run_launcher.supports_check_run_worker_health
    assert said_of(instance, of_a_run.pid).status is WorkerStatus.RUNNING
    of_a_run.kill()  # a zombie now: nobody has asked how it ended
    time.sleep(0.2)
    assert said_of(instance, of_a_run.pid).status is WorkerStatus.FAILED
    of_a_run.join()
    said = said_of(instance, of_a_run.pid)
    assert said.status is WorkerStatus.FAILED
    assert str(of_a_run.pid) in said.msg


def test_another_program_with_the_number_of_a_dead_process_is_not_it(instance):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        try:
            assert said_of(instance, other.pid).status is WorkerStatus.FAILED
        finally:
            other.kill()


@pytest.mark.parametrize("server", [{"host": "0.0.0.0", "port": 9}, {"host": "elsewhere", "socket": "/any"}, None])
def test_runs_of_a_server_that_cannot_be_asked_and_headless_ones_are_not_judged(instance, server):
    assert said_of(instance, 2**22 + 1, server).status is WorkerStatus.RUNNING


def test_a_server_elsewhere_is_asked_which_runs_it_has(instance, tmp_path):
    (tmp_path / "nothing.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "dagster", "api", "grpc", "-h", "127.0.0.1", "-p", str(port), "-f", "nothing.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as server:
        try:
            deadline = time.monotonic() + 60
            # Another name of this machine: as if the server were in another container.
            while said_of(instance, 1, {"host": "0.0.0.0", "port": port}).status is WorkerStatus.RUNNING:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        finally:
            server.kill()


def test_run_that_has_not_said_its_process_is_not_judged(instance):
    assert said_of(instance, None).status is WorkerStatus.RUNNING
