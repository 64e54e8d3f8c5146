"""Whether memory stays flat: the engine over many rows, with a captioner that holds no weights and no torch."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.captioning.caploom_engine import ledger_row
from benchmarks.captioning.inputs import BATCH_SIZE, PREFETCH, SMALL_PHOTOS, image_refs
from benchmarks.child import Done, Job
from caploom.captioning.backend import Generation, ImageRef
from caploom.captioning.engine import BatchEngine
from caploom.captioning.ledger import Ledger, LedgerWriter
from caploom.storage.opening import open_store

if TYPE_CHECKING:
    from PIL.Image import Image


class Averager:
    """A `BatchModel` without weights: it names a picture's average colour in as many words as a captioner."""

    device = "cpu"

    def prepare(self, images: "Sequence[Image]", refs: Sequence[ImageRef]) -> Any:
        """The pictures' average colours."""
        return [image.resize((1, 1)).getpixel((0, 0)) for image in images]

    def generate(self, prepared: Any) -> list[Generation]:
        """A sentence about each colour."""
        return [
            Generation(
                f"A picture with a balloon, a cake and a horse, whose colour on average is {colour}.", 20, "stop"
            )
            for colour in prepared
        ]

    def length(self, ref: ImageRef) -> float:
        """All prompts are alike."""
        return 0.0

    def free_memory(self) -> None:
        """It holds none."""


def run(job: Job) -> Done:
    """Options: rows. The same few hundred pictures come again and again; every one is read and decoded each time."""
    refs = image_refs(job.folder / SMALL_PHOTOS)
    rows = 0
    with tempfile.TemporaryDirectory() as folder, job.measured():
        ledger = Ledger(open_store(Path(folder)), "averager", "benchmark")
        with LedgerWriter(ledger, "shard") as writer:
            for chunk in BatchEngine(Averager(), BATCH_SIZE, PREFETCH).caption(_again(refs, job.options["rows"])):
                writer.append([ledger_row(item) for item in chunk.captioned])
                rows += len(chunk.captioned)
    return Done(rows, {"rows": rows, "complete": rows == job.options["rows"]})


def _again(refs: Iterable[ImageRef], rows: int) -> Iterator[ImageRef]:
    return itertools.islice(itertools.cycle(refs), rows)
