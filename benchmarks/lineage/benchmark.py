"""`lineage`: each question about a large store as a fresh process, beside the same answer from a scan of all files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.cases import Case, Outcome, Skipped, Verdict
from benchmarks.lineage.inputs import write_inputs
from benchmarks.lineage.sides import STANDINGS

QUESTIONS = ("lineage-back", "lineage-forward", "why", "trace", "trace-path", "trace-evaluated")
_TOLD = "inputs.json"


class Lineage:
    """Sizes are images, in shards of 2,500: 2.5 million are 1,000 shards and 10 million captions of four captioners.

    keep: a folder that the store is made in and left for the next time, where it is taken as it is.
    """

    size = 2_500_000
    quick_size = 10_000
    tiny_size = 200
    packages = ("duckdb", "pyarrow")

    def __init__(self, keep: str = "") -> None:
        self._keep = keep

    def prepare(self, folder: Path, size: int) -> None:
        """A store of that size, unless one is kept."""
        kept = Path(self._keep) if self._keep else folder
        if not (kept / _TOLD).is_file():
            kept.mkdir(parents=True, exist_ok=True)
            write_inputs(kept, size)

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """The catalog made from nothing, then each question as text, as JSON where it has that, and from a scan."""
        folder = {"folder": str(Path(self._keep).resolve())} if self._keep else {}
        return [
            Case("catalog.first_refresh", "manifests", "benchmarks.lineage.sides:first_refresh", folder),
            *(_case(f"caploom.{each}", "ask", {"question": each, **folder}) for each in (*QUESTIONS, *STANDINGS)),
            *(_case(f"json.{each}", "ask", {"question": each, "json": True, **folder}) for each in QUESTIONS),
            *(_case(f"scan.{each}", "scan", {"question": each, **folder}) for each in (*QUESTIONS, *STANDINGS)),
        ]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """Seconds of each question and of the first refresh, and whether answers and scans agree."""
        seconds = {f"{_plain(each)}_s": outcomes[f"caploom.{each}"].wall_s for each in QUESTIONS}
        return Verdict(
            ratios={
                **seconds,
                **{f"{each}_s": outcomes[f"caploom.{each}"].wall_s for each in STANDINGS},
                "slowest_question_s": max(seconds.values()),
                "first_refresh_s": outcomes["catalog.first_refresh"].wall_s,
                "trace_vs_scan": outcomes["scan.trace"].wall_s / outcomes["caploom.trace"].wall_s,
            },
            equal={
                **{f"{_plain(each)}_vs_scan": _same(outcomes, each, "json") for each in QUESTIONS},
                **{f"{each}_vs_scan": _same(outcomes, each, "caploom") for each in STANDINGS},
            },
        )


def _same(outcomes: Mapping[str, Outcome], question: str, side: str) -> bool:
    """Whether every run of a side, and of the scan, gave the same answer."""
    scans = outcomes[f"scan.{question}"].results
    return all(answer == scans[0] for answer in [*outcomes[f"{side}.{question}"].results, *scans])


def _case(name: str, function: str, options: Mapping[str, object]) -> Case:
    return Case(name, "questions", f"benchmarks.lineage.sides:{function}", options)


def _plain(question: str) -> str:
    return question.replace("-", "_")
