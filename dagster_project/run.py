"""A headless run of the whole graph, in this process: `caploom run FILE`, or `python -m dagster_project.run`.

Splits new rows into shards, captions these, runs every recipe, writes the report, and prints the results. One failing
recipe doesn't stop the others; the exit code is 0 only if everything was materialized.
"""

import logging
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import click
import dagster as dg

from caploom.commands.user_errors import runs_factory
from caploom.config.factory_config import DEMO_CONFIG, load_config
from caploom.errors import CaploomError
from caploom.exports.registry import EXPORTS
from caploom.questions.failures import current_failures
from caploom.questions.results.latest_results import latest_results
from caploom.questions.results.made import made_so_far
from caploom.questions.results.terminal import made_text, results_text
from caploom.report.make import make_report
from dagster_project.definitions import definitions_of, factory_assets
from dagster_project.headless_run import HeadlessRun
from dagster_project.jobs import REPORT

_SEEDS = click.option("--seeds", help="Comma-separated seeds instead of the YAML's, such as 0,1,2.")
_UNTIL = click.option("--until", metavar="STEP", help="The last step, such as captions or training_set.")


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=DEMO_CONFIG,
    help="The factory's YAML; by default the demo's.",
)
@_SEEDS
@_UNTIL
def main(path: Path, seeds: str | None, until: str | None) -> None:
    """Run a factory's whole graph in this process and print its results."""
    sys.exit(run_factory(path, seeds, until))


@click.command()
@runs_factory
@_SEEDS
@_UNTIL
def run(config: Path, seeds: str | None, until: str | None) -> None:
    """Run a factory's whole graph; finished work is kept. CONFIG is caploom.yaml unless named."""
    sys.exit(run_factory(config, seeds, until))


def run_quietly(path: Path, *, seeds: list[int] | None = None, until: str | None = None) -> list[str]:
    """Run the whole graph, or as far as a step; returns what failed. For `caploom.Factory.run`.

    Raises `ConfigError` for an unknown step, and `CaploomError` when the run cannot begin or is interrupted.
    """
    return _finished(path, seeds, until).failures


def headless_run(path: Path, *, seeds: list[int] | None = None, until: str | None = None) -> HeadlessRun:
    """The run of a YAML's factory, as yet not begun; raises `ConfigError`."""
    config = load_config(path, seeds=seeds)
    return HeadlessRun(config, factory_assets(config), definitions_of(path, seeds=seeds), until=until)


def _finished(path: Path, seeds: list[int] | None, until: str | None) -> HeadlessRun:
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)
    logging.getLogger("dagster").setLevel(logging.ERROR)
    headless = headless_run(path, seeds=seeds, until=until)
    headless.run()
    return headless


def run_factory(path: Path, seeds: str | None = None, until: str | None = None) -> int:
    """Run the whole graph and print its results; the exit status: 0, 1 when something failed, 2 for a mistake."""
    started = time.monotonic()
    try:
        headless = _finished(path, _parse_seeds(seeds), until)
    except CaploomError as error:
        click.echo(f"{error}", err=True)
        return 2
    if not headless.reports:
        click.echo(f"\n{made_text(made_so_far(headless.factory))}\n")
        if headless.gives_away:
            name = headless.factory.config.expanded_recipes()[0].name
            click.echo(f"To give it away: caploom export {path} {name} --format FORMAT --out FOLDER")
            click.echo(f"FORMAT: {', '.join(EXPORTS)}.")
    elif not any(failure.startswith(f"{REPORT}:") for failure in headless.failures):
        report = make_report(headless.factory)  # the one that the run has just made or found
        click.echo(f"\n{results_text(latest_results(headless.factory), best_first=True)}\n")
        click.echo(f"Report: {report.file('report.html')}")
    counts = Counter(row["reason"] for _, row in current_failures(headless.factory))
    if counts:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in counts.most_common())
        click.echo(f"{counts.total()} rows failed ({reasons}); `caploom failures {path}` lists them.")
    for failure in headless.failures:
        click.echo(f"FAILED {failure}", err=True)
    click.echo(f"Took {time.monotonic() - started:.0f} s.")
    return 1 if headless.failures else 0


def _parse_seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise CaploomError(f"--seeds {text!r}: write whole numbers with commas between them, such as 0,1,2.") from None


if __name__ == "__main__":
    main()
