"""`caploom convert`: turns published weights that transformers cannot load into model folders that it can."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from caploom.commands.user_errors import user_errors

if TYPE_CHECKING:
    from caploom.captioning.minigpt4 import DType

_PATH = click.Path(path_type=Path)


@click.group()
def convert() -> None:
    """Make model folders from published weights that transformers cannot load."""


@convert.command()
@click.option("--vit", type=_PATH, required=True, help="EVA ViT-g: eva_vit_g.pth.")
@click.option("--qformer", type=_PATH, required=True, help="BLIP-2's Q-Former: blip2_pretrained_flant5xxl.pth.")
@click.option(
    "--projection", type=_PATH, required=True, help="MiniGPT-4's: prerained_minigpt4_7b.pth or pretrained_minigpt4.pth."
)
@click.option("--vicuna", type=_PATH, required=True, help="Folder of Vicuna v0 in Hugging Face's format, same size.")
@click.option("--out", type=_PATH, required=True, help="Folder to create; new or empty.")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "bfloat16", "float32"]),
    default="float16",
    show_default=True,
    help="Type of the weights; the Q-Former keeps float32.",
)
@user_errors
def minigpt4(vit: Path, qformer: Path, projection: Path, vicuna: Path, out: Path, dtype: "DType") -> None:
    """Make the model folder of MiniGPT-4, for a captioner's `preset: minigpt-4` with `model: OUT`."""
    from caploom.captioning.minigpt4 import MiniGPT4Files, convert_minigpt4

    files = MiniGPT4Files(vit, qformer, projection, vicuna)
    convert_minigpt4(files, out, dtype=dtype, say=lambda step: click.echo(step, err=True))
    click.echo(f"{out}: MiniGPT-4 is ready; name it as the captioner's `model`.")
