"""`caploom init`: looks at images and captions, and writes the YAML of a factory for them."""

import json
import shlex
from pathlib import Path

import click

from caploom.commands.user_errors import FACTORY_YAML, user_errors


@click.command()
@click.argument("place")
@click.option("--captioner", "captioners", multiple=True, help="A preset (see `caploom presets`); repeatable.")
@click.option("--images", help="The folder of a table's images, where it is not near the table.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=FACTORY_YAML, show_default=True, help="The YAML to write."
)
@click.option("--force", is_flag=True, help="Overwrite the YAML.")
@click.option("--elsewhere", is_flag=True, help="Another machine will run it: presets need not fit this one's GPU.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@user_errors
def init(
    place: str, captioners: tuple[str, ...], images: str | None, out: Path, force: bool, elsewhere: bool, as_json: bool
) -> None:
    """Look at PLACE and write a factory's YAML for it.

    PLACE is a folder, a table of captions or a tar, here or at a URL such as s3://bucket/images: photos, photos with
    texts, COCO, Karpathy's splits, CC3M with its downloads, webdataset, img2dataset, the Hugging Face hub's Parquet,
    LLaVA's JSON.
    """
    from caploom.common.text import printable
    from caploom.scaffold.captioner_choice import choose_captioners
    from caploom.scaffold.look import look
    from caploom.scaffold.write_yaml import check_out, write_factory

    check_out(out, force=force)
    chosen = choose_captioners(captioners, elsewhere=elsewhere)
    found = look(place, images)
    write_factory(found, chosen, out)
    if as_json:
        answer = {
            "yaml": str(out),
            **found.to_dict(),
            "captioners": [{"name": each.name, "preset": each.preset, "why": each.why} for each in chosen],
        }
        click.echo(json.dumps(answer, indent=2, ensure_ascii=True))
        return
    click.echo(printable(found.sentence()))
    for remark in found.remarks:
        click.echo(f"  {printable(remark)}")
    for each in chosen:
        click.echo(f"Captioner: {each.preset}" + (f", because {each.why}." if each.why else "."))
        for key, (_, what) in each.to_fill_in().items():
            click.echo(f"  Edit its `{key}` in the YAML: {what}.")
    click.echo(f"Wrote {out}. Next:")
    for command, what in _NEXT.items():
        click.echo(f"  caploom {command} {shlex.quote(str(out))}  {what}")


_NEXT = {
    "check": "is it valid, and what would it make",
    "plan": "how much work is that, and how long does it take",
    "run": "make it",
    "ui": "make it and watch it in the browser",
}
