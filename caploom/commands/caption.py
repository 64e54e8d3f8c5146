"""`caploom caption`: captions for a folder of pictures, and nothing else."""

from pathlib import Path

import click

from caploom.commands.user_errors import user_errors


@click.command()
@click.argument("source")
@click.option("--captioner", "captioners", multiple=True, required=True, help="A preset's name; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help=".jsonl, .parquet, .txt, or a folder.")
@click.option("--shear", "shear", multiple=True, help="A shear rule, such as first_sentence or 'max_words: 20'.")
@click.option("--url", help="Address of the server, for presets of an OpenAI-compatible one.")
@click.option("--store", type=click.Path(path_type=Path), help="Where work is kept; OUT.factory by default.")
@user_errors
def caption(
    source: str, captioners: tuple[str, ...], out: Path, shear: tuple[str, ...], url: str | None, store: Path | None
) -> None:
    """Caption the pictures of a folder, table or tar, and write the captions to a file.

    Run it again after an interruption, or with more pictures: what is captioned stays captioned. With a folder as --out
    each picture gets a text file. `caploom presets` lists the captioners.
    """
    from caploom.scaffold.caption_source import CaptionJob, caption_source

    job = CaptionJob(source=source, captioners=captioners, out=out, shear=shear, url=url, store=store)
    made = caption_source(job, say=click.echo)
    click.echo(f"{out}: {made.captions:,} captions of {made.images:,} images.")
    for reason, number in made.failures.items():
        click.echo(f"without a caption or not an image: {number:,} ({reason})")
    if made.failures:
        click.echo(f"`caploom failures {made.config}` lists them.")
    click.echo(f"Kept in {made.config.parent}: a second run captions only what is new.")
