"""The Dagster UI of a factory: `python -m dagster_project.ui --config FILE`.

Starts `dagster dev` (webserver and daemon) on the factory's own instance, so that the UI shows what a headless run
made, and takes it down as a whole: `dagster dev` alone leaves its code server behind for most of a minute.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from caploom.config.factory_config import DEMO_CONFIG, load_config
from caploom.errors import CaploomError
from dagster_project.definitions import CONFIG_VARIABLE
from dagster_project.instance import instance_home
from dagster_project.report_pages import URL_VARIABLE, serving_reports

WORKSPACE = Path(__file__).parents[1] / "workspace.yaml"

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = 30.0  # seconds that the services get to end by themselves, before each sharper signal
_POLL = 0.25  # seconds
# Dagster's notes on its own API to those who write definitions: no news for those who open the UI. Matched by their
# beginning, since a category outside the standard library cannot be named in PYTHONWARNINGS.
_NOTES = ("Parameter `backfill_policy` of", "Function `dev_command` is superseded")


def serve(path: Path, *, host: str, port: int) -> int:
    """Run the UI until it is stopped; the exit code is that of `dagster dev`.

    Raises `CaploomError` when the YAML is wrong or nothing can listen at that address.
    """
    path = Path(path).absolute()
    config = load_config(path)
    home = os.environ.get("DAGSTER_HOME") or str(instance_home(config))
    _check_address(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    click.echo(f"Starting Dagster on {path} ...")
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(WORKSPACE), "--log-level", "warning"]
    with _stop_requests() as stops, serving_reports(config.store, host) as reports:
        told = {"DAGSTER_HOME": home, CONFIG_VARIABLE: str(path), URL_VARIABLE: reports}
        child = subprocess.Popen(
            [*command, "--host", host, "--port", str(port)],
            cwd=WORKSPACE.parent,
            env={**os.environ, **told, "PYTHONWARNINGS": _warning_filters()},
            # A group of its own: a Ctrl-C reaches it once, from here, and whatever it started can be found at the end.
            start_new_session=True,
        )
        try:
            return _attend(child, stops, url, reports)
        finally:
            _end_group(child)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collects the signals that ask to stop, instead of dying of them and leaving the services behind."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in _STOP_SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # `nohup` asks to outlive the terminal
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _attend(child: subprocess.Popen[bytes], stops: list[int], url: str, reports: str) -> int:
    """Say when the page is there, pass a request to stop on, and wait for the end; a second request hurries it."""
    said = False
    while child.poll() is None and not stops:
        if not said and _answers(url):
            click.echo(f"The UI is at {url} (Ctrl-C stops it), the newest report at {reports}")
            said = True
        time.sleep(_POLL)
    if stops and child.poll() is None:
        click.echo("Stopping ...")
        # Dagster's services end in order on an interrupt, whichever way the request came.
        child.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _PATIENCE
        while child.poll() is None and len(stops) < 2 and time.monotonic() < deadline:
            time.sleep(_POLL)
        if child.poll() is None:
            _end_group(child)
    return child.wait()


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End what is left of the child's process group, politely first."""
    deadline = time.monotonic() + _PATIENCE
    try:
        os.killpg(child.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            child.poll()  # takes the child's exit code, else it would count as left over for ever
            os.killpg(child.pid, 0)
            time.sleep(_POLL)
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing is left


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=2):
            return True
    except OSError:
        return False


def _check_address(host: str, port: int) -> None:
    """Dagster reports a taken port as a traceback in the middle of its start: ask first."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        raise CaploomError(f"--host {host}: there is no such address; 127.0.0.1 is this machine alone.") from None
    except PermissionError:
        raise CaploomError(f"--port {port}: only an administrator may use it; name one above 1023.") from None
    except OSError as error:
        raise CaploomError(
            f"--port {port}: nothing can listen on {host}:{port} ({error.strerror}); "
            f"stop what uses it or name another, such as --port {port + 1 if port < 65535 else 3000}."
        ) from None


def _warning_filters() -> str:
    """The user's own filters come last, and so win."""
    return ",".join(filter(None, [*(f"ignore:{note}" for note in _NOTES), os.environ.get("PYTHONWARNINGS")]))


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=DEMO_CONFIG,
    help="The factory's YAML; the demo's if left out.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the web page.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def main(path: Path, port: int, host: str) -> None:
    """Open the Dagster UI on a factory and what was made in it."""
    try:
        code = serve(path, host=host, port=port)
    except CaploomError as error:
        click.echo(f"{error}", err=True)
        sys.exit(2)
    sys.exit(code if code >= 0 else 128 - code)  # ended by a signal: as a shell says it


if __name__ == "__main__":
    main()
