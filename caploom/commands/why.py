"""`caploom why`: what a recipe's number is based on."""

import json
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
@click.argument("recipe")
@click.argument("metric")
@click.option("--set", "name", help="Only this evaluation set; by default all that the recipe was measured on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def why(config: Path, recipe: str, metric: str, name: str | None, as_json: bool) -> None:
    """Show what RECIPE's METRIC is based on: the checkpoint, the training set, and the sources of its captions.

    METRIC is `r1_i2t`, `r5_t2i`, `mean_r1`, `rsum`, `median_rank_i2t`, or a manifest's own name for it:
    `image_to_text.recall@1`.
    """
    from caploom.config.factory import Factory
    from caploom.questions.why.text import why_text
    from caploom.questions.why.why_metric import why_metric

    answer = why_metric(Factory.from_yaml(config).store, recipe, metric, evaluation_set=name)
    click.echo(json.dumps(answer.to_dict(), indent=2) if as_json else why_text(answer))
