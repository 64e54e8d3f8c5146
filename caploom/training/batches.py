"""A deterministic stream of batches: step s is a function of the seed and s alone.

So a resumed training needs no more than its step's number, and several processes together see what one would.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from caploom.errors import TrainingError
from caploom.images import ImageFault
from caploom.training.images import ImageDecoder
from caploom.training.rows import TrainingRows


@dataclass(frozen=True, slots=True)
class Batch:
    """A process's part of one step: images (n, 3, height, width) uint8 and tokens (texts, context length) int64.

    `owners` (texts,) int64 says which image each text is of; it is None where text i is image i's.
    """

    images: torch.Tensor
    tokens: torch.Tensor
    owners: torch.Tensor | None = None


class BatchStream:
    """An endless stream of this process's parts of the steps, from `first_step` on."""

    def __init__(
        self,
        rows: TrainingRows,
        decoder: ImageDecoder,
        tokenize: Callable[[list[str]], torch.Tensor],
        *,
        batch_size: int,
        seed: int,
        workers: int,
        cache_bytes: int,
        max_failed_share: float = 0.1,
        rank: int = 0,
        processes: int = 1,
        first_step: int = 0,
        resized: Sequence[Path] = (),
    ) -> None:
        if batch_size > len(rows):
            raise TrainingError(
                f"A batch of {batch_size:,} needs as many rows, and the training set has {len(rows.usable):,} with a "
                "caption; set the trainer's batch_size to at most that or add pairs."
            )
        self._first_step, self._workers = first_step, workers
        self._steps = _Steps(rows, decoder, tokenize, batch_size, seed, rank, processes)
        self._failed: dict[int, str] = {}
        self.truncated_share = 0.0

    @property
    def failures(self) -> dict[str, int]:
        """How many rows could not be used so far, by reason; a row counts once however often it is met."""
        return dict(Counter(self._failed.values()))

    def __iter__(self) -> Iterator[Batch]:
        for batch, failed in self._loaded():
            self._failed.update(failed)
            yield batch

    def _loaded(self) -> Iterator[tuple[Batch, dict[int, str]]]:
        if self._workers == 0:
            return (self._steps[step] for step in _from(self._first_step))
        return iter(
            DataLoader(self._steps, batch_size=None, sampler=_From(self._first_step), num_workers=self._workers)
        )


class _Steps(Dataset[tuple[Batch, dict[int, str]]]):
    def __init__(
        self,
        rows: TrainingRows,
        decoder: ImageDecoder,
        tokenize: Callable[[list[str]], torch.Tensor],
        batch_size: int,
        seed: int,
        rank: int,
        processes: int,
    ) -> None:
        self._rows, self._decoder, self._tokenize = rows, decoder, tokenize
        self._batch_size, self._seed, self._rank, self._processes = batch_size, seed, rank, processes

    def __getitem__(self, step: int) -> tuple[Batch, dict[int, str]]:
        epoch, place = divmod(step, len(self._rows) // self._batch_size)
        order = epoch_order(np.arange(len(self._rows)), seed=self._seed, epoch=epoch)
        share = self._batch_size // self._processes
        start = place * self._batch_size + self._rank * share
        images, texts, failed = [], [], {}
        for row in order[start : start + share].tolist():
            try:
                if not self._rows.has_captions(row):
                    raise ImageFault("no_caption", f"{self._rows.path(row)}: it has no caption.")
                images.append(self._decoder.decode(self._rows.path(row), self._rows.image_id(row)))
            except ImageFault as error:
                failed[row] = error.reason
                continue
            texts.append(self._rows.draw_texts(row, seed=self._seed, epoch=epoch))
        tokens = self._tokenize([text for each in texts for text in each])
        counts = torch.tensor([len(each) for each in texts])
        owners = None if self._rows.drawing.texts == 1 else torch.repeat_interleave(counts)
        return Batch(torch.from_numpy(np.stack(images)), tokens, owners), failed


def epoch_order(rows: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """The rows in the order in which an epoch visits them; a function of seed and epoch alone."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed % 2**64, epoch])))
    return generator.permutation(rows)


def _from(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1


class _From(Sampler[int]):
    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        return _from(self._first)
