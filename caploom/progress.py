"""One progress bar a stage, on standard error: a bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]
"""Called with (done, total); `done` never shrinks."""


@contextmanager
def track(stage: str, total: int, unit: str) -> Iterator[Progress]:
    """A progress bar for a stage of `total` units; nothing is shown when the stage never reports (it found its work done)."""
    from tqdm import tqdm

    bar: tqdm | None = None  # type: ignore[type-arg]

    def report(done: int, of: int) -> None:
        nonlocal bar
        if bar is None:
            # A log is not a terminal: a line every ten seconds is enough there.
            interval = 0.2 if sys.stderr.isatty() else 10.0
            bar = tqdm(total=of, desc=stage, unit=unit, mininterval=interval, dynamic_ncols=True)
        bar.update(done - bar.n)

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()
