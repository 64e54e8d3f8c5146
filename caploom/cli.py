"""The `caploom` command: look into a factory from a terminal, redo failures, prepare captioners."""

from itertools import chain
from pathlib import Path

import click

import caploom
from caploom.checkpoint_cli import checkpoint
from caploom.command_errors import user_errors
from caploom.compare_cli import compare
from caploom.convert_cli import convert
from caploom.export_cli import export

_CONFIG = click.argument("config", type=click.Path(path_type=Path))


@click.group()
@click.version_option(caploom.__version__)
def main() -> None:
    """A dataset factory for vision-language training."""


@main.command()
@_CONFIG
@user_errors
def check(config: Path) -> None:
    """Validate a factory's YAML and list what it would make."""
    from caploom.captioning.identity import captioner_fingerprint
    from caploom.config import load_config

    loaded = load_config(config)
    click.echo(f"{config}: the factory {loaded.name} is well formed; its artifacts lie in {loaded.store}.")
    for name, captioner in loaded.captioners.items():
        click.echo(f"captioner {name}: {captioner.label} ({captioner_fingerprint(captioner)})")
    for recipe in loaded.expanded_recipes():
        captioners = ", ".join(recipe.captioners) or "raw captions only"
        filters = ", ".join(step.filter for step in recipe.filters) or "none"
        click.echo(
            f"recipe {recipe.name}: {captioners}; shear {recipe.shear}; filters {filters}; mix {recipe.mix.strategy}; "
            f"seed {recipe.seed}"
        )


@main.command()
@_CONFIG
@user_errors
def results(config: Path) -> None:
    """Print Recall@1/5/10 of every measured recipe."""
    from caploom.factory import Factory
    from caploom.lineage.report import by_label, classification_table, markdown_table, recall_table
    from caploom.lineage.results import classification_rows, finished_arms, result_rows, verdict

    arms, waiting = finished_arms(Factory.from_yaml(config))
    for name, rows in by_label(result_rows(arms)).items():
        click.echo(f"{name}\n{markdown_table(recall_table(rows))}\n{verdict(rows)}")
    for name, classified in by_label(classification_rows(arms)).items():
        click.echo(f"{name}\n{markdown_table(classification_table(classified))}")
    if waiting:
        click.echo(f"Not measured yet: {', '.join(recipe.name for recipe in waiting)}.")


@main.command()
@_CONFIG
@user_errors
def failures(config: Path) -> None:
    """Print every row that failed, with its reason, and the rows of imported files that found no image."""
    from caploom.factory import Factory
    from caploom.lineage.failures import current_failures, unmatched_imports

    factory, number = Factory.from_yaml(config), 0
    for where, row in chain(current_failures(factory), unmatched_imports(factory)):
        number += 1
        click.echo(f"{where}\t{row['reason']}\t{row['detail']}")
    click.echo(f"{number} failed rows.")


@main.command()
@_CONFIG
@user_errors
def statistics(config: Path) -> None:
    """Print what each captioner's captions are like: lengths, refusals, openings, words shared with the others."""
    from caploom.factory import Factory
    from caploom.lineage.caption_statistics import statistics_markdown, statistics_of_shards
    from caploom.readers.ingest import ingested_shards

    factory = Factory.from_yaml(config)
    shards = [artifact.manifest.configuration["shard"] for artifact in ingested_shards(factory)]
    for captioner in factory.config.captioners:
        click.echo(f"{captioner}\n{statistics_markdown(statistics_of_shards(factory, captioner, shards))}\n")


@main.command()
@_CONFIG
@click.option("--captioner", "captioners", multiple=True, help="Only this captioner's; may be given several times.")
@user_errors
def retry(config: Path, captioners: tuple[str, ...]) -> None:
    """Caption again the images that failed, and only those, as often as each captioner's `max_attempts` allows.

    `make run`, or materializing in the UI, then brings the new captions into the training sets.
    """
    from caploom.captioning.backend import load_backend
    from caploom.captioning.retry_failures import retry_every_shard
    from caploom.factory import Factory
    from caploom.progress import track

    factory = Factory.from_yaml(config)
    for captioner in captioners or factory.config.captioners:
        with track(f"captions/{captioner}", "images") as bar:
            for shard, retried in retry_every_shard(factory, captioner, load_backend, bar):
                click.echo(
                    f"captions/{captioner} [{shard}]: {retried.tried} tried again, {retried.captioned} captioned, "
                    f"{retried.tried - retried.captioned} failed again; {retried.given_up} given up in all."
                )


@main.command()
@click.argument("name", required=False)
@user_errors
def presets(name: str | None) -> None:
    """List the ready-made captioners, or show one as YAML, to be used or copied."""
    import yaml

    from caploom.captioning.presets import preset_named
    from caploom.captioning.presets import presets as all_presets

    if name is not None:
        click.echo(yaml.safe_dump({name: dict(preset_named(name))}, sort_keys=False, allow_unicode=True), nl=False)
        return
    for each, preset in all_presets().items():
        memory = f"{preset['memory_gb']:g} GB" if "memory_gb" in preset else "-"
        click.echo(f"{each:22} {memory:>7}  {preset.get('model', '(your own folder)'):45} {preset['about'].strip()}")


main.add_command(compare)
main.add_command(checkpoint)
main.add_command(convert)
main.add_command(export)


if __name__ == "__main__":
    main()
