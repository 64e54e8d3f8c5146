"""Dagster's services as separate processes, as on a server: each can be killed and started again by itself."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml
from tiny_factory import ROOT

from dagster_project.definitions import CONFIG_VARIABLE


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Services:
    """The code server, the daemon and the webserver of one factory."""

    def __init__(self, config: Path, home: Path, folder: Path) -> None:
        self.port, self._code_port = free_port(), free_port()
        self._folder = folder
        workspace = folder / "workspace.yaml"
        server = {"host": "127.0.0.1", "port": self._code_port, "location_name": "caploom"}
        workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
        self._environment = {
            **os.environ,
            "DAGSTER_HOME": str(home),
            CONFIG_VARIABLE: str(config),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
        python = [sys.executable, "-m"]
        code = ["--host", "127.0.0.1", "-p", str(self._code_port), "-m", "dagster_project.definitions", "-a", "defs"]
        self._commands = {
            "code": [*python, "dagster", "api", "grpc", *code, "--location-name", "caploom"],
            "daemon": [*python, "dagster._daemon", "run", "-w", str(workspace)],
            "webserver": [*python, "dagster_webserver", "-w", str(workspace), "-p", str(self.port)],
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def start(self, *names: str) -> None:
        """Start those that do not run; without names, all of them."""
        for name in names or self._commands:
            process = self._processes.get(name)
            if process is not None and process.poll() is None:
                continue
            with (self._folder / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    self._commands[name],
                    cwd=ROOT,
                    env=self._environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def kill(self, name: str) -> None:
        """SIGKILL to one service, and to nothing else."""
        process = self._processes[name]
        process.kill()
        process.wait()

    def run_workers(self) -> list[psutil.Process]:
        """The processes that carry runs and their steps out, those of a killed code server as well."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            try:
                command = process.info["cmdline"] or []
                environment = process.info["environ"] or {}
            except psutil.Error:
                continue
            ours = environment.get("DAGSTER_HOME") == self._environment["DAGSTER_HOME"]
            if ours and ("execute_run" in command or "execute_step" in command or "spawn_main" in " ".join(command)):
                found.append(process)
        return found

    def stop(self) -> None:
        """End everything that belongs to the factory, the orphans of killed services too."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        for process in self._processes.values():
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        for process in psutil.process_iter(["environ"]):
            try:
                if (process.info["environ"] or {}).get("DAGSTER_HOME") == self._environment["DAGSTER_HOME"]:
                    process.kill()
            except psutil.Error:
                continue
