"""`caploom results`: the recalls of every recipe."""

import gc
from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
def results(config: Path) -> None:
    """Print Recall@1/5/10 of every measured recipe."""
    from caploom.config.factory import Factory
    from caploom.questions.results.latest_results import latest_results
    from caploom.questions.results.results import classification_rows, result_rows, verdict
    from caploom.questions.results.tables import by_label, classification_table, markdown_table, recall_table

    gc.set_threshold(1_000_000)  # a large store has a million objects in its manifests, none of them garbage
    latest = latest_results(Factory.from_yaml(config))
    arms = latest.arms
    for name, rows in by_label(result_rows(arms)).items():
        click.echo(f"{name}\n{markdown_table(recall_table(rows))}\n{verdict(rows)}")
    for name, classified in by_label(classification_rows(arms)).items():
        click.echo(f"{name}\n{markdown_table(classification_table(classified))}")
    for sentence in latest.sentences():
        click.echo(sentence)
