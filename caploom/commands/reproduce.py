"""`caploom reproduce`: whether an artifact comes out the same when it is made again."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from caploom.commands.user_errors import user_errors


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("artifact")
@click.option(
    "--in",
    "folder",
    type=click.Path(path_type=Path),
    help="Make it in this new folder, which is kept, and not in /tmp.",
)
@click.option("--keep", is_flag=True, help="Keep the temporary folder, and say where it is.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@user_errors
def reproduce(config: Path, artifact: str, folder: Path | None, keep: bool, as_json: bool) -> None:
    """Make ARTIFACT again from its manifest, in a fresh folder, and compare it with the one in the store.

    ARTIFACT is what `caploom lineage` and the UI call it, such as "checkpoint [four-captioners]" or
    training_set/four-captioners (of several versions the newest), a whole address, a folder, or the beginning of a
    fingerprint.

    It is made of the very artifacts that its manifest records, by the settings that were recorded; the YAML adds what
    no manifest has (devices, batch sizes). The store is not written to.

    Exits with 0 when both are the same, 1 when not, 2 when that cannot be asked.
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
    """The folder that was asked for, or a temporary one, which is deleted unless it is to be kept."""
    if folder is not None:
        yield folder
        return
    temporary = Path(tempfile.mkdtemp(prefix="caploom-reproduce-"))
    try:
        yield temporary
    finally:
        if not keep:
            shutil.rmtree(temporary, ignore_errors=True)
