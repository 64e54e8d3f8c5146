"""One progress bar a stage, on standard error: a bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

Progress = Callable[[int, int], None]
"""Called with (done, total); `done` never shrinks."""

_LOG_INTERVAL = 10.0  # seconds between lines where the output is no terminal
_BAR_INTERVAL = 0.2


class StageBar:
    """The bar of a stage that works through several parts (shards, recipes), each reporting its own progress."""

    def __init__(self, stage: str, unit: str, parts: int) -> None:
        self._stage, self._unit, self._parts = stage, unit, parts
        self._totals: list[int] = []
        self._bar: tqdm | None = None

    def part(self) -> Progress:
        """The progress of the next part; a part that finds its work done never calls it."""
        finished = self._bar.n if self._bar is not None else 0
        first = True

        def report(done: int, total: int) -> None:
            nonlocal first
            if first:
                first = False
                self._totals.append(total)
                self._open()
            assert self._bar is not None
            self._bar.update(finished + done - self._bar.n)

        return report

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()

    def _open(self) -> None:
        # What later parts will add is guessed from those seen, so that the time left is about right.
        expected = round(sum(self._totals) * max(self._parts / len(self._totals), 1))
        if self._bar is None:
            from tqdm import tqdm

            interval = _BAR_INTERVAL if sys.stderr.isatty() else _LOG_INTERVAL
            self._bar = tqdm(
                total=expected, desc=self._stage, unit=f" {self._unit}", mininterval=interval, dynamic_ncols=True
            )
        self._bar.total = expected


@contextmanager
def track(stage: str, unit: str, *, parts: int = 1) -> Iterator[StageBar]:
    """The progress bar of a stage; nothing is shown when no part ever reports."""
    bar = StageBar(stage, unit, parts)
    try:
        yield bar
    finally:
        bar.close()
