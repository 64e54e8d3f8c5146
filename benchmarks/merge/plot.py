"""Draws how the merge's CPU seconds and memory grow: `python -m benchmarks.merge.plot REPORT.json... PICTURE.png`."""

import json
from pathlib import Path
from typing import Any

import click
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_CASES = {
    "seed": ("load, extend, dump", "#000000"),
    "caploom.parquet": ("Parquet", "#0072B2"),
    "caploom.json": ("JSON of a finished set", "#009E73"),
    "caploom.parquet_and_json": ("Parquet and JSON", "#E69F00"),
}


@click.command()
@click.argument("reports", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
def main(reports: tuple[Path, ...], picture: Path) -> None:
    """Draw the PICTURE of one or more REPORTS of `python -m benchmarks merge --json`; a later one wins."""
    cases: dict[str, dict[str, Any]] = {}
    for path in reports:
        cases |= json.loads(path.read_text(encoding="utf-8"))["cases"]
    figure = Figure(figsize=(9.0, 3.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, key, title in zip(
        figure.subplots(1, 2), ("cpu_s", "peak_rss_mb"), ("CPU seconds", "peak memory, MB"), strict=True
    ):
        for case, (label, colour) in _CASES.items():
            points = sorted((_images(name), values[key]) for name, values in cases.items() if _case(name) == case)
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=label)
        axes.set(xscale="log", yscale="log", xlabel="images, five captions each", title=title)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(picture)


def _case(name: str) -> str:
    return name.rpartition("_")[0]


def _images(name: str) -> float:
    size = name.rpartition("_")[2]
    return float(size[:-1]) * {"k": 1e3, "m": 1e6}[size[-1]]


if __name__ == "__main__":
    main()
