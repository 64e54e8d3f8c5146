"""`python -m benchmarks NAME`: a peer and Caploom, side by side in one run. See benchmarks/README.md."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import click

from benchmarks.cases import Benchmark, BenchmarkError
from benchmarks.harness import run_benchmark, table
from benchmarks.processes import ForkedProcesses
from caploom.errors import CaploomError

BENCHMARKS = {
    "captioning": "benchmarks.captioning.benchmark:Captioning",
    "shearing": "benchmarks.shearing.benchmark:Shearing",
    "merge": "benchmarks.merge.benchmark:Merge",
    "retrieval": "benchmarks.retrieval.benchmark:Retrieval",
    "training": "benchmarks.training.benchmark:Training",
    "orchestration": "benchmarks.orchestration.benchmark:Orchestration",
    "ray": "benchmarks.ray.benchmark:OnRay",
    "ingest": "benchmarks.ingest.benchmark:Ingest",
    "lineage": "benchmarks.lineage.benchmark:Lineage",
    "scale": "benchmarks.scale.benchmark:Scale",
}
"""Name to `"module:Name"`, imported when it is run."""


@click.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--size", type=click.IntRange(min=1), help="How much to work through; each benchmark has its own default."
)
@click.option("--repeats", type=click.IntRange(min=1), help="Measured runs of each case; 3 unless --quick or --tiny.")
@click.option("--quick", is_flag=True, help="A small size, one run, no warm-up: to see that it works, not to cite.")
@click.option("--tiny", is_flag=True, help="The smallest size, in forks of one process: that it works, in seconds.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here too.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the benchmark itself.")
def main(
    name: str,
    size: int | None,
    repeats: int | None,
    quick: bool,
    tiny: bool,
    json_file: Path | None,
    settings: tuple[str, ...],
) -> None:
    """Run the benchmark NAME, or `all` of them."""
    if name != "all" and name not in BENCHMARKS:
        raise click.ClickException(f'there is no benchmark "{name}"; known: {", ".join(BENCHMARKS)}, all')
    if name == "all" and (size or settings):
        raise click.ClickException("--size and --set mean something else in each benchmark: name one instead of all")
    reports = []
    with ForkedProcesses() if tiny else nullcontext() as processes:
        for each in BENCHMARKS if name == "all" else [name]:
            try:
                benchmark = load(each, settings)
                report = run_benchmark(
                    each,
                    benchmark,
                    size=size or _size_of(benchmark, quick=quick, tiny=tiny),
                    repeats=repeats or (1 if quick or tiny else 3),
                    warm_up=not (quick or tiny),
                    processes=processes,
                    say=lambda line: click.echo(line, err=True),
                )
            except CaploomError as error:
                raise click.ClickException(str(error)) from None
            click.echo(table(report) + "\n")
            reports.append(report)
    if json_file is not None:
        json_file.write_text(json.dumps(reports if name == "all" else reports[0], indent=1) + "\n", encoding="utf-8")


def _size_of(benchmark: Benchmark, *, quick: bool, tiny: bool) -> int:
    if tiny:
        return benchmark.tiny_size
    return benchmark.quick_size if quick else benchmark.size


def load(name: str, settings: Sequence[str] = ()) -> Benchmark:
    """A benchmark with its own options, each `KEY=VALUE`; raises `BenchmarkError` for one that it does not have."""
    module, _, attribute = BENCHMARKS[name].partition(":")
    options: dict[str, Any] = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign:
            raise BenchmarkError(f"--set {setting}: write KEY=VALUE.")
        options[key] = value
    kind = getattr(import_module(module), attribute)
    known = list(signature(kind).parameters)
    for key in options:
        if key not in known:
            raise BenchmarkError(f'--set {key}: {name} has no option "{key}"; it has: {", ".join(known) or "none"}.')
    benchmark: Benchmark = kind(**options)
    return benchmark


if __name__ == "__main__":
    main()
