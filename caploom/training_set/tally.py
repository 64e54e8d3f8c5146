"""A merge's counts: kept captions by source, and the others by reason."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caploom.common.names import RAW_SOURCE
from caploom.storage.manifest import RowCount
from caploom.training_set.samples import Samples


class Tally:
    """Counts kept captions, and others by their reason."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self._images = 0
        self._captions: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        self._samples = Samples()

    @property
    def out(self) -> int:
        """Captions kept."""
        return self._captions.total()

    def count(self, captions: pa.Table, rows: pa.Table) -> None:
        """Count kept captions, and their training rows; all captions of an image must come together."""
        sums = captions.group_by("source").aggregate([("words", "sum"), ("words", "count")]).to_pydict()
        self._captions.update(dict(zip(sums["source"], sums["words_count"], strict=True)))
        self._words.update(dict(zip(sums["source"], sums["words_sum"], strict=True)))
        # An image's captions are adjacent.
        runs = (
            pc.run_end_encode(ids).values for ids in captions.select(["image_id"]).combine_chunks().column(0).chunks
        )
        self._images += sum(len(run) for run in runs)
        self._samples.add(rows)

    def add(self, later: "Tally") -> None:
        """Add another tally's counts for other images."""
        self.reasons.update(later.reasons)
        self._images += later._images
        self._captions.update(later._captions)
        self._words.update(later._words)
        self._samples.add_counted(later._samples)

    def row_count(self, rows_in: int) -> RowCount:
        """The row counts."""
        reasons = {reason: number for reason, number in self.reasons.items() if number}
        failed = sum(reasons.values())
        return RowCount(unit="captions", rows_in=rows_in, rows_out=self.out, rows_failed=failed, reasons=reasons)

    def summary(self) -> dict[str, Any]:
        """The figures of the manifest."""
        sources = sorted(self._captions, key=lambda source: (source != RAW_SOURCE, source))
        return {
            "images": self._images,
            "captions": self.out,
            "captions_by_source": {source: self._captions[source] for source in sources},
            "mean_words_by_source": {
                source: round(self._words[source] / self._captions[source], 2) for source in sources
            },
            "images_by_source": {source: self._samples.images[source] for source in sources},
            "sample_share_by_source": self._samples.shares(sources),
            "repeated_captions": self.reasons["repeated_caption"],
            "orphans": self.reasons["orphan_caption"],
        }
