"""The trainer's process, which also writes down the rows that it is given: `rows-RANK.json`, a list for each step."""

import json
import os
import sys
from pathlib import Path

from caploom.training import batches
from caploom.training.process import run

folder = Path(sys.argv[1])
given: dict[int, list[int]] = {}
prepare = batches._Steps.__getitem__


def recorded(steps, step):
    position = step % (len(steps._rows) // steps._batch_size)
    start = position * steps._batch_size + steps._rank * steps._share
    part = prepare(steps, step)
    order = steps._epoch.positions(start, start + steps._share)
    given[step] = [int(steps._window_of(steps._epoch, number).numbers[row]) for number, rows in order for row in rows]
    (folder / f"rows-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(given))
    return part


batches._Steps.__getitem__ = recorded

if __name__ == "__main__":
    sys.exit(run(folder))
