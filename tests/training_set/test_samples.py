import random

import pyarrow as pa
import pytest

from caploom.storage.records import TRAINING_ROWS
from caploom.training_set.samples import Samples


def drawn_rows(chance):
    """Rows as the mix `concatenate` writes them: an image's captions side by side, one a row."""
    rows = []
    for image in range(40):
        for source in sorted(chance.choices(["raw", "one", "two"], k=chance.randint(1, 4))):
            rows.append({"image_id": f"{image:064x}", "captions": ["x"], "sources": [source], "weights": [1.0]})
    return [{**row, "image": "i", "path": "p"} for row in rows]


@pytest.mark.parametrize("seed", range(5))
def test_pieces_count_what_the_whole_counts(seed):
    chance = random.Random(seed)
    rows = drawn_rows(chance)
    samples, start = Samples(), 0
    while start < len(rows):
        end = start + chance.randint(1, 5)
        samples.add(pa.Table.from_pylist(rows[start:end], TRAINING_ROWS))
        start = end
    images = {(row["image_id"], row["sources"][0]) for row in rows}
    for source in ("raw", "one", "two"):
        assert samples.images[source] == sum(found == source for _, found in images)
        assert samples.drawn[source] == sum(row["sources"] == [source] for row in rows)
    assert sum(samples.shares(["raw", "one", "two"]).values()) == pytest.approx(1, abs=1e-5)
