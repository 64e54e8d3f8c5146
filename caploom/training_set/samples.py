"""The sources of a training set's samples: sums of the weights with which training draws, and numbers of images."""

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Samples:
    """Adds up training rows (columns image_id, sources and weights), in their order, in any pieces.

    Attributes:
        drawn: by source, the sum of its weights: its expected number of samples, of one per row.
        images: by source, the number of images with a caption of it.
    """

    def __init__(self) -> None:
        self.drawn: dict[str, float] = defaultdict(float)
        self.images: Counter[str] = Counter()
        self._last: tuple[str, set[str]] = ("", set())  # the last image, and its sources so far

    def add(self, rows: pa.Table) -> None:
        """Count some rows."""
        for batch in rows.select(["image_id", "sources", "weights"]).to_batches():
            if len(batch):
                self._add(batch)

    def add_counted(self, later: "Samples") -> None:
        """Add another counter's results for other images."""
        for source, drawn in later.drawn.items():
            self.drawn[source] += drawn
        self.images.update(later.images)

    def shares(self, sources: list[str]) -> dict[str, float]:
        """Each source's fraction of the samples, 0 to 1."""
        total = sum(self.drawn.values()) or 1
        return {source: round(self.drawn.get(source, 0.0) / total, 6) for source in sources}

    def _add(self, batch: pa.RecordBatch) -> None:
        lists, weights = batch.column("sources"), batch.column("weights").flatten().to_numpy()
        encoded = lists.flatten().dictionary_encode()
        source = encoded.indices.to_numpy()
        # A row is an image; with the mix `concatenate` it is a caption, and an image's rows are adjacent.
        ids = pc.run_end_encode(batch.column("image_id"))
        runs = np.diff(np.asarray(ids.run_ends), prepend=0)
        row_of = np.repeat(np.arange(len(batch)), lists.value_lengths().to_numpy())
        image_of = np.repeat(np.arange(len(runs)), runs)[row_of]
        drawn = np.bincount(source, weights=weights, minlength=len(encoded.dictionary))
        first, last = ids.values[0].as_py(), ids.values[-1].as_py()
        seen, of_last = self._last[1] if first == self._last[0] else set(), set()
        for number, name in enumerate(encoded.dictionary.to_pylist()):
            self.drawn[name] += float(drawn[number])
            images = image_of[source == number]
            counted_before = name in seen and images[0] == 0
            self.images[name] += 1 + int(np.count_nonzero(np.diff(images))) - counted_before
            if images[-1] == len(runs) - 1:
                of_last.add(name)
        self._last = (last, of_last | (seen if len(runs) == 1 else set()))
