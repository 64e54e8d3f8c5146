"""What a benchmark is made of: cases that run in processes of their own, and what their figures come to."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from caploom.errors import CaploomError


class BenchmarkError(CaploomError):
    """A benchmark that cannot be run as asked, or a case that failed."""


@dataclass(frozen=True)
class Case:
    """One side of a comparison: a function that is called with a `Job` in a fresh process and gives a `Done`.

    `target` is `"module:function"`, `unit` what `Done.count` counts, in the plural. `python` is another interpreter
    where a peer has its own environment. `threads` is `OMP_NUM_THREADS`.
    """

    name: str
    unit: str
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)
    python: str = sys.executable
    threads: int = 1


@dataclass(frozen=True)
class Skipped:
    """A case that cannot run here, and what would make it run."""

    name: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """A case's medians over its measured runs: seconds, megabytes (10**6 bytes), units a second.

    `results` holds what each run gave back.
    """

    cpu_s: float
    wall_s: float
    peak_rss_mb: float
    rate: float
    unit: str
    n: int
    results: Sequence[dict[str, Any]]

    def median(self, figure: str) -> float:
        """The median of a figure that the case gave back."""
        return median([result[figure] for result in self.results])


@dataclass
class Verdict:
    """What the outcomes come to: how many times better than each peer, and whether the results are the same."""

    ratios: dict[str, float] = field(default_factory=dict)
    equal: dict[str, bool] = field(default_factory=dict)


class Benchmark(Protocol):
    """A benchmark: its sizes, the packages whose versions matter, its inputs, its cases, and its verdict.

    `size` is for figures to cite, `quick_size` for a try, `tiny_size` for the tests, which take what seconds allow.
    """

    size: int
    quick_size: int
    tiny_size: int
    packages: Sequence[str]

    def prepare(self, folder: Path, size: int) -> None:
        """Write the inputs, the same for the same size, once for all runs."""
        ...

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """The sides of the comparison."""
        ...

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """The verdict over the outcomes, by the names of their cases."""
        ...


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
