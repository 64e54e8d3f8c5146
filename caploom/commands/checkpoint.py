"""`caploom checkpoint`: a recipe's trained model, in a folder of its own, for other tools."""

import shutil
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command
from caploom.errors import ExportError

_HOW_TO_LOAD = {
    "open_clip": 'open_clip.create_model_and_transforms("local-dir:{folder}")',
    "transformers": 'CLIPModel.from_pretrained("{folder}"), CLIPProcessor.from_pretrained("{folder}")',
}


@factory_command
@click.argument("recipe")
@click.option("--to", "folder", required=True, help="Folder to create, or URL; new or empty.")
@click.option("--format", "format_name", type=click.Choice(list(_HOW_TO_LOAD)), default="open_clip", show_default=True)
@click.option("--stage", type=click.Choice(["zero-shot", "fine-tuned"]), default="zero-shot", show_default=True)
def checkpoint(config: Path, recipe: str, folder: str, format_name: str, stage: str) -> None:
    """Write a recipe's checkpoint for open_clip or for transformers."""
    from caploom.config.factory import Factory
    from caploom.stages.graph import Graph
    from caploom.stages.stage import Ref
    from caploom.storage.atomic_output import absolute, atomic_output
    from caploom.storage.paths import is_url

    kind = "checkpoint" if stage == "zero-shot" else "finetuned_checkpoint"
    made = Graph(Factory.from_yaml(config)).require(Ref(kind, (recipe,)))
    final = absolute(folder)
    with atomic_output(final) as scratch:
        how = _write(made.folder, scratch, format_name)
    click.echo(f"{final}: the checkpoint of {recipe} ({stage}) as {format_name}.")
    if is_url(final):
        click.echo("fetch it into a folder to load it")
        return
    click.echo(f"load with: {how.format(folder=final)}")


def _write(checkpoint: Path, folder: Path, format_name: str) -> str:
    if (checkpoint / "blip_config.json").is_file():
        if format_name == "open_clip":
            raise ExportError("A BLIP is not an open_clip model; export it with --format transformers.")
        shutil.copytree(checkpoint, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        return 'BlipForImageTextRetrieval.from_pretrained("{folder}/retrieval")'
    if format_name == "transformers":
        from caploom.training.clip_model import load_checkpoint
        from caploom.training.transformers_export import export_to_transformers

        export_to_transformers(load_checkpoint(checkpoint), folder)
    else:
        for name in ("model.safetensors", "open_clip_config.json"):
            shutil.copyfile(checkpoint / name, folder / name)
    return _HOW_TO_LOAD[format_name]
