"""`caploom statistics`: what each captioner's captions are like."""

from pathlib import Path

import click

from caploom.commands.user_errors import factory_command


@factory_command
def statistics(config: Path) -> None:
    """Print what each captioner's captions are like: lengths, refusals, openings, words shared with the others."""
    from caploom.config.factory import Factory
    from caploom.questions.caption_statistics import statistics_of_shards, statistics_text
    from caploom.stages.raw_pairs import ingested_shards

    factory = Factory.from_yaml(config)
    shards = [artifact.manifest.configuration["shard"] for artifact in ingested_shards(factory)]
    for captioner in factory.config.captioners:
        click.echo(f"{captioner}\n{statistics_text(statistics_of_shards(factory, captioner, shards))}\n")
