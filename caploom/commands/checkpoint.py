"""`caploom checkpoint`: a recipe's trained model, in a folder of its own, for other tools."""

import shutil
import tempfile
from pathlib import Path

import click

from caploom.commands.user_errors import user_errors
from caploom.errors import ExportError

_HOW_TO_LOAD = {
    "open_clip": 'open_clip.create_model_and_transforms("local-dir:{folder}")',
    "transformers": 'CLIPModel.from_pretrained("{folder}"), CLIPProcessor.from_pretrained("{folder}")',
}


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("recipe")
@click.option("--to", "folder", type=click.Path(path_type=Path), required=True, help="Folder to make; new or empty.")
@click.option("--format", "format_name", type=click.Choice(list(_HOW_TO_LOAD)), default="open_clip", show_default=True)
@click.option("--stage", type=click.Choice(["zero-shot", "fine-tuned"]), default="zero-shot", show_default=True)
@user_errors
def checkpoint(config: Path, recipe: str, folder: Path, format_name: str, stage: str) -> None:
    """Write a recipe's checkpoint for open_clip or for transformers."""
    from caploom.factory import Factory
    from caploom.training.checkpoint import checkpoint_plan, finetuned_plan

    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder}: it is there already and not empty; name a new folder.")
    factory = Factory.from_yaml(config)
    plan_of = checkpoint_plan if stage == "zero-shot" else finetuned_plan
    plan = plan_of(factory, factory.config.recipe(recipe))
    made = factory.store.require(plan, make_with=f"materialize checkpoint [{recipe}]")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        how = _write(made.folder, Path(scratch), format_name)
        folder.mkdir(exist_ok=True)
        for file in Path(scratch).iterdir():
            file.rename(folder / file.name)
    click.echo(f"{folder}: the checkpoint of {recipe} ({stage}) as {format_name}.")
    click.echo(f"load with: {how.format(folder=folder)}")


def _write(checkpoint: Path, folder: Path, format_name: str) -> str:
    if (checkpoint / "blip_config.json").is_file():
        if format_name == "open_clip":
            raise ExportError("A BLIP is none of open_clip's models; export it with --format transformers.")
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
