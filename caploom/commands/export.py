"""`caploom export`: a recipe's training set in a format that another tool reads."""

from pathlib import Path
from typing import Any

import click

from caploom.commands.user_errors import factory_command
from caploom.exports.registry import EXPORTS

_FOLDER = click.Path(path_type=Path)


@factory_command
@click.argument("recipe")
@click.option("--format", "format_name", required=True, help=f"One of {', '.join(EXPORTS)}.")
@click.option("--out", required=True, help="Folder to create, or URL; new or empty.")
@click.option("--check", help="Check of image files: content (default), exists or none; not for exported images.")
@click.option("--one-per-image", is_flag=True, default=None, help="One drawn caption of each image, instead of all.")
@click.option("--seed", type=int, help="Seed of the draw; 0 by default.")
@click.option("--per-captioner", is_flag=True, default=None, help="released-json: also one file per captioner.")
@click.option("--image-root", type=_FOLDER, help="blip: the folder that image paths are relative to.")
@click.option("--samples-a-tar", type=int, help="webdataset: images per tar; 10000 by default.")
@click.option("--symlink", is_flag=True, default=None, help="hf-imagefolder: symbolic links instead of hard links.")
def export(config: Path, recipe: str, format_name: str, out: str, **options: Any) -> None:
    """Write a recipe's training set in a format that another tool reads.

    The folder gets an export.json that says what was exported, and skipped.jsonl with every image that was not.
    """
    from caploom.common.progress import track
    from caploom.config.factory import Factory
    from caploom.exports.export import export_training_set
    from caploom.stages.graph import Graph
    from caploom.stages.moves import moves_of
    from caploom.stages.stage import Ref

    graph = Graph(Factory.from_yaml(config))
    training_set = graph.require(Ref("training_set", (recipe,)))
    given = {name: value for name, value in options.items() if value is not None}
    with track(f"export {format_name}", "rows") as bar:
        moves = moves_of(graph)
        made = export_training_set(training_set, format_name, out, progress=bar.part(), moves=moves, **given)
    click.echo(f"{out}: {made.rows.rows_out:,} captions of {made.images:,} images as {made.format}.")
    for reason, number in made.rows.reasons.items():
        click.echo(f"left out: {number:,} captions ({reason})")
    for note in made.notes:
        click.echo(f"note: {note}")
    for line in made.how_to_read:
        click.echo(f"read with: {line}")
