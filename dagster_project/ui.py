"""The Dagster UI of a factory: `caploom ui FILE`, or `python -m dagster_project.ui --config FILE`.

Starts `dagster dev` (webserver and daemon) on the factory's own instance, so that the UI shows the results of
headless runs, and stops it as a whole: `dagster dev` alone leaves its code server behind for most of a minute.
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
import dagster as dg

from caploom.commands.user_errors import runs_factory
from caploom.common.child_processes import child_environment
from caploom.config.factory import Factory
from caploom.config.factory_config import DEMO_CONFIG, FactoryConfig, load_config
from caploom.errors import CaploomError
from dagster_project.definitions import CONFIG_VARIABLE
from dagster_project.instance import instance_home
from dagster_project.report_pages import URL_VARIABLE, serving_reports
from dagster_project.sharding import shards_at_the_start

_CHECKOUT = Path(__file__).parents[1] / "workspace.yaml"
WORKSPACE = _CHECKOUT if _CHECKOUT.exists() else Path(__file__).with_name("workspace.yaml")
"""A checkout's, or the copy that an installed package has."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = 30.0  # seconds that the services have to end by themselves, before each stronger signal
_POLL = 0.25  # seconds
# Dagster's API warnings for authors of definitions are of no use to users of the UI. They are matched by their
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
    _prepare_shards(path, config, home)
    click.echo(f"Starting Dagster on {path} ...")
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(WORKSPACE), "--log-level", "warning"]
    with _stop_requests() as stops, serving_reports(config.store, host) as reports:
        variables = {"DAGSTER_HOME": home, CONFIG_VARIABLE: str(path), URL_VARIABLE: reports}
        child = subprocess.Popen(
            [*command, "--host", host, "--port", str(port)],
            cwd=WORKSPACE.parent,
            env=child_environment({**os.environ, **variables, "PYTHONWARNINGS": _warning_filters()}),
            # A separate process group: a Ctrl-C reaches it once, from here, and its children can be found at the end.
            start_new_session=True,
        )
        try:
            return _attend(child, stops, url, reports)
        finally:
            _end_group(child)


def _prepare_shards(path: Path, config: FactoryConfig, home: str) -> None:
    """Have the source's shards there when the page opens; of a source that cannot be read it is said."""
    if config.pairs is None:
        return
    with dg.DagsterInstance.from_config(home) as instance:
        try:
            shards_at_the_start(Factory.from_config(config), instance)
        except CaploomError as error:
            click.echo(f"{path}: the source has no shards yet: {error}", err=True)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collects signals to stop, instead of dying from them and leaving the services behind."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in _STOP_SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # with `nohup` it should outlive the terminal
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _attend(child: subprocess.Popen[bytes], stops: list[int], url: str, reports: str) -> int:
    """Print when the page is up, forward a request to stop, and wait for the end; a second request hurries it."""
    said = False
    while child.poll() is None and not stops:
        if not said and _answers(url):
            click.echo(f"The UI is at {url} (Ctrl-C stops it), the newest report at {reports}")
            said = True
        time.sleep(_POLL)
    if stops and child.poll() is None:
        click.echo("Stopping ...")
        # Dagster's services shut down cleanly on an interrupt, however the request came.
        child.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _PATIENCE
        while child.poll() is None and len(stops) < 2 and time.monotonic() < deadline:
            time.sleep(_POLL)
        if child.poll() is None:
            _end_group(child)
    return child.wait()


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End the rest of the child's process group, gently at first."""
    deadline = time.monotonic() + _PATIENCE
    try:
        os.killpg(child.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            child.poll()  # collects the child's exit code, otherwise it would remain a zombie
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
    """Check first: Dagster reports a port in use as a traceback in the middle of its start."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        raise CaploomError(f"--host {host}: there is no such address; 127.0.0.1 is this machine only.") from None
    except PermissionError:
        raise CaploomError(f"--port {port}: only an administrator may use it; choose one above 1023.") from None
    except OSError as error:
        raise CaploomError(
            f"--port {port}: nothing can listen on {host}:{port} ({error.strerror}); "
            f"stop the program that uses it or choose another, such as --port {port + 1 if port < 65535 else 3000}."
        ) from None


def _warning_filters() -> str:
    """The user's own filters come last, and so take precedence."""
    return ",".join(filter(None, [*(f"ignore:{note}" for note in _NOTES), os.environ.get("PYTHONWARNINGS")]))


_PORT = click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the web page."
)
_HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=DEMO_CONFIG,
    help="The factory's YAML; by default the demo's.",
)
@_PORT
@_HOST
def main(path: Path, port: int, host: str) -> None:
    """Open the Dagster UI of a factory."""
    sys.exit(_serve(path, host, port))


@click.command()
@runs_factory
@_PORT
@_HOST
def ui(config: Path, port: int, host: str) -> None:
    """Open the Dagster UI of a factory. CONFIG is caploom.yaml unless named."""
    sys.exit(_serve(config, host, port))


def _serve(path: Path, host: str, port: int) -> int:
    try:
        code = serve(path, host=host, port=port)
    except CaploomError as error:
        click.echo(f"{error}", err=True)
        return 2
    return code if code >= 0 else 128 - code  # ended by a signal: as a shell reports it


if __name__ == "__main__":
    main()
