"""A folder of the user's own called `dagster_project` or `caploom` hides nothing of the installed one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tiny_factory import tiny_settings, write_settings

pytestmark = pytest.mark.slow  # a run, with a training of its own, and the UI's services

CAPLOOM = Path(sys.executable).with_name("caploom")
PATIENCE = 240  # seconds


@pytest.fixture
def folder(tmp_path):
    """A tiny factory beside two packages that cannot be imported."""
    for name in ("dagster_project", "caploom"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('another {name} was imported')")
    settings = tiny_settings(tmp_path / "pictures")
    settings |= {"captioners": {}, "shears": {}, "recipes": {"raw-only": {"captioners": []}}}
    write_settings(tmp_path / "caploom.yaml", settings)
    return tmp_path


def environment():
    own = {name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "CAPLOOM_CONFIG")}
    return {**own, "OMP_NUM_THREADS": "1"}


def test_a_run_started_there_trains_and_reports(folder):
    done = subprocess.run(
        [CAPLOOM, "run"], cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| raw-only " in done.stdout


def test_the_ui_started_there_loads_the_factory(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [CAPLOOM, "ui", "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as ui:
        try:
            query = json.dumps({"query": "{assetNodes {assetKey {path}}}"}).encode()
            url = f"http://127.0.0.1:{port}/graphql"
            request = urllib.request.Request(url, query, {"Content-Type": "application/json"})
            deadline = time.monotonic() + PATIENCE
            found = []
            while not found and ui.poll() is None and time.monotonic() < deadline:
                time.sleep(1)
                try:
                    with urllib.request.urlopen(request, timeout=10) as answer:
                        found = json.load(answer)["data"]["assetNodes"]
                except OSError:
                    continue
            assert ["raw_pairs"] in [node["assetKey"]["path"] for node in found]
        finally:
            ui.send_signal(signal.SIGINT)
            ui.wait(timeout=PATIENCE)
