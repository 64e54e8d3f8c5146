"""The progress of a stage: a bar on a terminal, and a line now and then in a log file and in the run's own log."""

import io
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tqdm import tqdm

_LOG_INTERVAL = 10.0  # seconds between lines where the output is not a terminal
_BAR_INTERVAL = 0.2


class Progress(Protocol):
    """Called with the rows done (which never decrease), all rows, and how many of those done failed."""

    def __call__(self, done: int, total: int, failed: int = 0) -> None:
        """Report."""
        ...


class StageBar:
    """The bar of a stage that works through several parts (shards, recipes), each reporting its own progress."""

    def __init__(self, stage: str, unit: str, parts: int, log: Callable[[str], None] | None) -> None:
        self._stage, self._unit, self._parts, self._log = stage, unit, parts, log
        self._totals: list[int] = []
        self._bar: tqdm | None = None
        self._failed = 0
        self._said: float = -1  # rows done, in the line before
        self._started = self._logged = time.monotonic()

    def part(self) -> Progress:
        """The progress of the next part; a part whose work is already done never calls it."""
        finished = self._bar.n if self._bar is not None else 0
        failed_before = self._failed
        first = True

        def report(done: int, total: int, failed: int = 0) -> None:
            nonlocal first
            if first:
                first = False
                self._totals.append(total)
                self._open()
            assert self._bar is not None
            self._failed = failed_before + failed
            if self._failed:
                self._bar.set_postfix_str(f"{self._failed} failed", refresh=False)
            self._bar.update(finished + done - self._bar.n)
            if time.monotonic() - self._logged >= _LOG_INTERVAL:
                self._log_line()

        return report

    def close(self) -> None:
        """End the line of the bar."""
        if self._bar is not None:
            self._bar.close()
            if self._bar.n != self._said:
                self._log_line()

    def _open(self) -> None:
        # The size of later parts is estimated from those seen, so that the time left is about right.
        expected = round(sum(self._totals) * max(self._parts / len(self._totals), 1))
        if self._bar is None:
            from tqdm import tqdm

            shown = sys.stderr.isatty()  # a file gets lines instead: see _log_line
            self._bar = tqdm(
                total=expected,
                desc=self._stage,
                unit=f" {self._unit}",
                mininterval=_BAR_INTERVAL if shown else math.inf,
                dynamic_ncols=True,
                file=sys.stderr if shown else io.StringIO(),
            )
        self._bar.total = expected

    def _log_line(self) -> None:
        """One line in the run's own log, and in a file instead of a bar: done, rate, time left, failures."""
        self._logged = time.monotonic()
        if self._bar is None:
            return
        self._said = self._bar.n
        seconds = self._logged - self._started
        rate = self._bar.n / seconds if seconds > 0 else 0.0
        total = self._bar.total or 0
        left = self._bar.format_interval((total - self._bar.n) / rate) if rate else "?"
        line = (
            f"{self._stage}: {self._bar.n:,} of {total:,} {self._unit}, {rate:.1f} a second, {left} left, "
            f"{self._failed} failed"
        )
        if not sys.stderr.isatty():
            print(line, file=sys.stderr, flush=True)
        if self._log is not None:
            self._log(line)


@contextmanager
def track(stage: str, unit: str, *, parts: int = 1, log: Callable[[str], None] | None = None) -> Iterator[StageBar]:
    """The progress bar of a stage; nothing is shown until a part reports. `log` takes a line now and then."""
    bar = StageBar(stage, unit, parts, log)
    try:
        yield bar
    finally:
        bar.close()
