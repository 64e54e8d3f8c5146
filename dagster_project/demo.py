"""`caploom demo`: the embedded demo in a folder of its own, wherever Caploom is installed."""

import sys
from pathlib import Path

import click

from caploom.commands.user_errors import FACTORY_YAML
from caploom.config.factory_config import DEMO_CONFIG
from caploom.errors import CaploomError, ConfigError
from caploom.storage.writing import write_atomically
from dagster_project.run import run_factory

_STORE = "../factory/demo"
"""What the demo's YAML calls its store, which in a checkout lies beside the folder of YAMLs."""


_QUICK = {"scenes: 3000": "scenes: 300", "scenes: 500": "scenes: 100", "steps: 240": "steps: 24"}


def write_demo(folder: Path, *, quick: bool = False) -> Path:
    """Write the demo's YAML into a folder, with its store and pictures there too; one that is there stays.

    The `quick` one has a tenth of the pictures and steps, too few to compare its recipes.
    Raises `ConfigError` when the folder cannot be written.
    """
    path = folder / FACTORY_YAML
    if path.exists():
        return path
    text = DEMO_CONFIG.read_text(encoding="utf-8")
    text = text.replace(f"{_STORE}/pictures", "pictures").replace(_STORE, "store")
    for whole, tenth in _QUICK.items() if quick else ():
        text = text.replace(whole, tenth)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{folder}: it cannot be written ({error.strerror}); name another folder.") from None
    return path


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("caploom-demo"))
@click.option("--quick", is_flag=True, help="A tenth of it, to see that everything runs.")
def demo(folder: Path, quick: bool) -> None:
    """Run the embedded demo in FOLDER: pictures, four tiny captioners, four recipes, a report; minutes on 2 cores.

    FOLDER is caploom-demo unless named. Its caploom.yaml is an example of a whole factory.
    """
    try:
        path = write_demo(folder, quick=quick)
    except CaploomError as error:
        click.echo(f"{error}", err=True)
        sys.exit(2)
    status = run_factory(path)
    if status == 0:
        click.echo(f"Look at it in the Dagster UI: caploom ui {path}")
    sys.exit(status)
