"""What grows with the number of shards, at three of them: linear, or worse."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.cases import BenchmarkError, Case, Outcome, Skipped, Verdict
from benchmarks.lineage.inputs import write_inputs
from benchmarks.scale.inputs import IMAGES, write_store
from benchmarks.scale.keys import write_ledger

_PLANNED = 300  # shards, at most, of the factories whose plans are asked for


@dataclass(frozen=True)
class _Side:
    """A case at some numbers of shards: `target` is below `benchmarks.scale`, `needs` what must be installed."""

    name: str
    part: str
    unit: str
    target: str
    shards: Callable[[int], Sequence[int]]
    needs: Sequence[str] = ()


_SIDES = (
    _Side("store", "store", "manifests", "sides:questions", lambda size: _steps(size)),
    _Side("ledger", "ledger", "keys", "keys:ledger", lambda size: _steps(size)),
    _Side("scan", "scan", "keys", "keys:scan", lambda size: _steps(size)),
    # An event takes the same whether there are many; of the most of them it would take long to write them.
    _Side("dagster", "dagster", "partitions", "sides:dagster_records", lambda size: _steps(size)[:2]),
    _Side("plans", "plans", "questions", "planning:on_disk", lambda size: [_planned(size)]),
    _Side("plans_on_s3", "plans", "questions", "planning:on_s3", lambda size: [_planned(size)], ("moto", "s3fs")),
)
_PARTS = tuple(dict.fromkeys(side.part for side in _SIDES))


class Scale:
    """Sizes are shards: 40,000 of 10,000 images are 400 million.

    `parts`: some of store, ledger, scan, dagster and plans. Plans are asked for at 300 shards, or at `size` if that is
    less.
    """

    size = 40_000
    quick_size = 400
    tiny_size = 4
    packages = ("duckdb", "dagster")

    def __init__(self, parts: str = ",".join(_PARTS)) -> None:
        self._parts = parts.split(",")
        unknown = set(self._parts) - set(_PARTS)
        if unknown:
            raise BenchmarkError(f"--set parts: there is no part {', '.join(sorted(unknown))}.")

    def prepare(self, folder: Path, size: int) -> None:
        """Stores and ledgers of a fortieth, a quarter and all of the shards; a finished factory to plan in."""
        for shards in _steps(size):
            if "store" in self._parts:
                write_store(folder / f"factory-{shards}", shards)
            if "ledger" in self._parts or "scan" in self._parts:
                write_ledger(folder / f"ledger-{shards}", shards)
        if "plans" in self._parts:
            shards = _planned(size)
            (folder / f"plans-{shards}").mkdir()
            write_inputs(folder / f"plans-{shards}", shards * IMAGES, rows=IMAGES)

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """See the modules `sides`, `keys` and `planning`."""
        return [_case(side, shards) for side in _SIDES if side.part in self._parts for shards in side.shards(size)]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """Every part's figures, by the number of shards; and whether every question found the factory finished."""
        verdict = Verdict()
        for name, outcome in outcomes.items():
            for figure in outcome.results[0]:
                if figure.endswith("_complete"):
                    verdict.equal[f"{name}.{figure}"] = all(run[figure] for run in outcome.results)
                else:
                    verdict.ratios[f"{name}.{figure}"] = outcome.median(figure)
            scan = outcomes.get(name.replace("ledger.", "scan."))
            if name.startswith("ledger.") and scan is not None:
                verdict.ratios[f"{name}.vs_scan"] = scan.median("new_images_s") / outcome.median("new_images_s")
        return verdict


def _case(side: _Side, shards: int) -> Case | Skipped:
    name = f"{side.name}.{shards}"
    missing = [package for package in side.needs if find_spec(package) is None]
    if missing:
        return Skipped(name, f"not installed: {', '.join(missing)} (`make venv` installs it).")
    return Case(name, side.unit, f"benchmarks.scale.{side.target}", {"shards": shards})


def _planned(size: int) -> int:
    return min(_PLANNED, size)


def _steps(size: int) -> list[int]:
    return sorted({max(4, size // 40), max(4, size // 4), size})
