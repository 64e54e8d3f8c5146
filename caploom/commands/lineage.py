"""`caploom lineage`: what an artifact was made from, and what was made from it."""

import json
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
@click.argument("artifact")
@click.option("--json", "as_json", is_flag=True, help="Print nodes and edges as JSON.")
@click.option(
    "--format", "form", type=click.Choice(["tree", "mermaid", "dot"]), default="tree", show_default=True, help="How."
)
@click.option("--all", "everything", is_flag=True, help="Each shard on a line of its own.")
def lineage(config: Path, artifact: str, as_json: bool, form: str, everything: bool) -> None:
    """Show what ARTIFACT was made from, back to the raw files, and what was made from it.

    ARTIFACT is `checkpoint/four-captioners` (the newest), an address with its fingerprint, `captions/NAME [SHARD]` as
    in the UI, a folder, or the beginning of a fingerprint.
    """
    from caploom.config.factory import Factory
    from caploom.questions.lineage.lineage_graph import artifact_lineage
    from caploom.questions.lineage.text import lineage_dot, lineage_mermaid, lineage_tree

    graph = artifact_lineage(Factory.from_yaml(config).store, artifact)
    if as_json:
        click.echo(json.dumps(graph.to_dict(), indent=2))
        return
    write = {"tree": lineage_tree, "mermaid": lineage_mermaid, "dot": lineage_dot}[form]
    click.echo(write(graph, fold=not everything))
