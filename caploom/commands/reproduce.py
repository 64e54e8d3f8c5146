"""`caploom reproduce`: whether an artifact comes out the same when it is rebuilt."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
@click.argument("artifact")
@click.option(
    "--in",
    "folder",
    type=click.Path(path_type=Path),
    help="Rebuild it in this new folder, which is kept, instead of in /tmp.",
)
@click.option("--keep", is_flag=True, help="Keep the temporary folder, and print its path.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def reproduce(config: Path, artifact: str, folder: Path | None, keep: bool, as_json: bool) -> None:
    """Rebuild ARTIFACT from its manifest, in a fresh folder, and compare it with the one in the store.

    ARTIFACT is its name in `caploom lineage` and the UI, such as "checkpoint [four-captioners]" or
    training_set/four-captioners (the newest of several versions), a whole address, a folder, or the beginning of a
    fingerprint.

    It is rebuilt from the exact artifacts and settings that its manifest records; the YAML adds what no manifest has
    (devices, batch sizes). Nothing is written to the store.

    Exits with 0 when both are the same, 1 when not, 2 when they cannot be compared.
    """
    from caploom.config.factory import Factory
    from caploom.reproduce.reproduce import reproduce as make_again
    from caploom.reproduce.verdict import verdict_text
    from caploom.stages.artifact_names import find_artifact

    factory = Factory.from_yaml(config)
    found = find_artifact(factory.store, artifact)
    with _fresh_folder(folder, keep=keep) as fresh:
        result = make_again(factory, found, fresh)
    click.echo(json.dumps(result.to_dict(), indent=2) if as_json else verdict_text(result))
    if folder is not None or keep:
        click.echo(f"What was made: {result.folder}", err=True)
    sys.exit(0 if result.is_same else 1)


@contextmanager
def _fresh_folder(folder: Path | None, *, keep: bool) -> Iterator[Path]:
    """The requested folder, or a temporary one, which is deleted unless it is to be kept."""
    if folder is not None:
        yield folder
        return
    temporary = Path(tempfile.mkdtemp(prefix="caploom-reproduce-"))
    try:
        yield temporary
    finally:
        if not keep:
            shutil.rmtree(temporary, ignore_errors=True)
