"""`caploom try`: what a captioner says of a few images, before a run has it caption all of them."""

import json
from pathlib import Path

import click

from caploom.commands.user_errors import user_errors


@click.command("try")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("captioner")
@click.option("--images", type=click.IntRange(min=1), default=8, show_default=True, help="Number of images.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@user_errors
def try_(config: Path, captioner: str, images: int, as_json: bool) -> None:
    """Have CAPTIONER caption the first images, and show what its recipes' shears keep.

    Its texts are kept: a run does not ask for them again. The pictures with the texts are a page in the store.
    """
    from caploom.common.progress import track
    from caploom.config.factory import Factory
    from caploom.tries.try_captioner import try_captioner

    factory = Factory.from_yaml(config)
    with track(f"captions/{captioner}", "images") as bar:
        tried = try_captioner(factory, captioner, images, progress=bar.part())
    if as_json:
        click.echo(json.dumps(tried.to_dict(), indent=2))
        return
    click.echo(tried)
    click.echo(f"\nThe pictures with these texts: {tried.page}")
