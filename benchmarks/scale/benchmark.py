"""What grows with the number of shards, at three of them: linear, or worse."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.cases import BenchmarkError, Case, Outcome, Skipped, Verdict
from benchmarks.scale.inputs import write_store
from benchmarks.scale.keys import write_ledger

_SIDES = (
    ("store", "manifests", "sides:questions", 3),
    ("ledger", "keys", "keys:ledger", 3),
    ("scan", "keys", "keys:scan", 3),
    # An event takes the same whether there are many; of the most of them it would take long to write them.
    ("dagster", "partitions", "sides:dagster_records", 2),
)


class Scale:
    """Sizes are shards: 40,000 of 10,000 images are 400 million. `parts`: some of store, ledger, scan and dagster."""

    size = 40_000
    quick_size = 400
    tiny_size = 8
    packages = ("duckdb", "dagster")

    def __init__(self, parts: str = "store,ledger,scan,dagster") -> None:
        self._parts = parts.split(",")
        unknown = set(self._parts) - {name for name, *_ in _SIDES}
        if unknown:
            raise BenchmarkError(f"--set parts: there is no part {', '.join(sorted(unknown))}.")

    def prepare(self, folder: Path, size: int) -> None:
        """Stores and ledgers of a fortieth, a quarter and all of the shards."""
        for shards in _steps(size):
            if "store" in self._parts:
                write_store(folder / f"factory-{shards}", shards)
            if "ledger" in self._parts or "scan" in self._parts:
                write_ledger(folder / f"ledger-{shards}", shards)

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """See the modules `sides` and `keys`."""
        return [
            Case(f"{name}.{shards}", unit, f"benchmarks.scale.{function}", {"shards": shards})
            for name, unit, function, steps in _SIDES
            if name in self._parts
            for shards in _steps(size)[:steps]
        ]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """Every part's seconds, by the number of shards."""
        verdict = Verdict()
        for name, outcome in outcomes.items():
            for figure in outcome.results[0]:
                verdict.ratios[f"{name}.{figure}"] = outcome.median(figure)
            scan = outcomes.get(name.replace("ledger.", "scan."))
            if name.startswith("ledger.") and scan is not None:
                verdict.ratios[f"{name}.vs_scan"] = scan.median("new_images_s") / outcome.median("new_images_s")
        return verdict


def _steps(size: int) -> list[int]:
    return sorted({max(4, size // 40), max(4, size // 4), size})
