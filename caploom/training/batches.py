"""A deterministic stream of batches: step s is a function of the seed and s alone.

So a resumed training needs only its step's number, and several processes together see the same rows as one would. An
unusable row leaves its slot in the batch empty, and is counted by its reason.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from caploom.errors import TrainingError
from caploom.images.decode import ImageFault
from caploom.training.image_sources import ImageCache, ImageSource, ResizedImages
from caploom.training.images import ImageDecoder
from caploom.training.rows import Epoch, TrainingRows, Window

_BEFORE_JUDGING = 100  # rows seen before the fraction of failed ones may end a training


@dataclass(frozen=True, slots=True)
class Batch:
    """A process's part of one step: images (n, 3, height, width) uint8 and tokens (texts, context length) int64.

    `owners` (texts,) int64 says which image each text belongs to; it is None where text i is image i's.
    """

    images: torch.Tensor
    tokens: torch.Tensor
    owners: torch.Tensor | None = None


class BatchStream:
    """An endless stream of this process's parts of the steps, from `first_step` on.

    Step s takes the rows from position s x batch_size of its epoch on, of which each process takes an equal share; the
    rest of an epoch after its last whole batch is not used. `workers` are processes that prepare batches; with none, a
    thread prepares the next batch while one is trained on. `resized` are folders of resized images. `failed_rows` has
    the reason for each row that was unusable so far, by its number.
    """

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
        max_failed_share: float = 1.0,
        rank: int = 0,
        processes: int = 1,
        first_step: int = 0,
        resized: Sequence[Path] = (),
        pin_memory: bool = False,
    ) -> None:
        if batch_size > len(rows):
            raise TrainingError(
                f"A batch of {batch_size:,} needs as many rows, and the training set has {len(rows):,}; set the "
                "trainer's batch_size to at most that or add pairs."
            )
        self._first_step, self._workers, self._max_failed_share = first_step, workers, max_failed_share
        self._pin_memory = pin_memory
        source: ImageSource = ResizedImages(resized, decoder) if resized else decoder
        # Each worker process has its own cache, so the limit is divided among them.
        cached = ImageCache(source, cache_bytes // max(1, workers))
        self._steps = _Steps(rows, cached, tokenize, batch_size, seed, rank, processes)
        self._rows, self._per_epoch = len(rows), (len(rows) // batch_size) * (batch_size // processes)
        self.failed_rows: dict[int, str] = {}
        self._seen = self._texts = self._cut = 0

    @property
    def failures(self) -> dict[str, int]:
        """The number of rows that were unusable so far, by reason; a row counts once, however often it is seen."""
        return dict(Counter(self.failed_rows.values()))

    @property
    def truncated_share(self) -> float:
        """The fraction of the texts drawn so far that are longer than the context and were cut; 0 to 1."""
        return self._cut / self._texts if self._texts else 0.0

    def __iter__(self) -> Iterator[Batch]:
        """Parts forever. Raises `TrainingError` when too many rows are unusable, or a whole part is."""
        for step, part in enumerate(self._parts(), start=self._first_step):
            self.failed_rows.update({row: fault.reason for row, fault in part.failed.items()})
            self._seen += part.rows
            self._texts += len(part.tokens)
            self._cut += part.cut
            self._judge(step, part)
            yield Batch(part.images, part.tokens, part.owners)

    def _judge(self, step: int, part: "_Part") -> None:
        if not part.failed:
            return
        met = min(self._seen, self._rows)  # at most: in the next epoch some rows are known and some new
        failed = len(self.failed_rows)
        too_many = met >= min(_BEFORE_JUDGING, self._per_epoch) and failed > self._max_failed_share * met
        if len(part.failed) == part.rows or too_many:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.failures.items()))
            first = next(iter(part.failed.values()))
            raise TrainingError(
                f"Of the first {met:,} rows of the training set {failed:,} cannot be used ({reasons}), as "
                f"found at step {step + 1:,}: {first.detail} Restore the images, or merge again without them."
            )

    def _parts(self) -> Iterator["_Part"]:
        if self._workers:
            loader = DataLoader(
                self._steps,
                batch_size=None,
                sampler=_From(self._first_step),
                num_workers=self._workers,
                prefetch_factor=2,
                pin_memory=self._pin_memory,
                generator=torch.Generator(),  # separate: seeding the workers must not advance dropout's generator
            )
            return iter(loader)
        return self._one_ahead()

    def _one_ahead(self) -> Generator["_Part", None, None]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="next-batch") as thread:
            coming = thread.submit(self._steps.__getitem__, self._first_step)
            for step in _from(self._first_step + 1):
                part = coming.result()
                coming = thread.submit(self._steps.__getitem__, step)
                yield part


@dataclass(frozen=True, slots=True)
class _Part:
    images: torch.Tensor
    tokens: torch.Tensor
    owners: torch.Tensor | None
    rows: int  # rows seen
    cut: int  # texts that were longer than the context
    failed: dict[int, "_Fault"] = field(default_factory=dict)

    def pin_memory(self) -> "_Part":
        """Called by `DataLoader` for batches that go to a GPU."""
        owners = None if self.owners is None else self.owners.pin_memory()
        return _Part(self.images.pin_memory(), self.tokens.pin_memory(), owners, self.rows, self.cut, self.failed)


@dataclass(frozen=True, slots=True)
class _Fault:
    """An `ImageFault` as it travels between processes."""

    reason: str
    detail: str


class _Steps(Dataset[_Part]):
    """Prepares steps by their number, in the trainer or in its worker processes."""

    def __init__(
        self,
        rows: TrainingRows,
        source: ImageSource,
        tokenize: Callable[[list[str]], torch.Tensor],
        batch_size: int,
        seed: int,
        rank: int,
        processes: int,
    ) -> None:
        self._rows, self._source, self._tokenize, self._seed = rows, source, tokenize, seed
        self._batch_size, self._share, self._rank = batch_size, batch_size // processes, rank
        self._padding = int(tokenize([""])[0, -1])
        self._epoch: Epoch | None = None
        self._window: tuple[int, int, Window] | None = None  # epoch, number, rows: the one read last

    def __getitem__(self, step: int) -> _Part:
        epoch, position = divmod(step, len(self._rows) // self._batch_size)
        if self._epoch is None or self._epoch.epoch != epoch:
            self._epoch = self._rows.epoch(seed=self._seed, epoch=epoch)
        start = position * self._batch_size + self._rank * self._share
        images: list[np.ndarray] = []
        texts: list[list[str]] = []
        failed: dict[int, _Fault] = {}
        for number, positions in self._epoch.positions(start, start + self._share):
            window = self._window_of(self._epoch, number)
            for row in positions.tolist():
                try:
                    images.append(self._image(window, row))
                except ImageFault as error:
                    failed[int(window.numbers[row])] = _Fault(error.reason, error.detail)
                    continue
                texts.append(window.draw_texts(row, seed=self._seed, epoch=epoch))
        return self._part(images, texts, failed)

    def _window_of(self, epoch: Epoch, number: int) -> Window:
        if self._window is None or self._window[:2] != (epoch.epoch, number):
            self._window = None  # free the old window before the new one is read
            self._window = epoch.epoch, number, self._rows.read(epoch.windows[number])
        return self._window[2]

    def _image(self, window: Window, row: int) -> np.ndarray:
        path, image_id = window.image(row)
        if not window.has_captions(row):
            raise ImageFault("no_caption", f"{path}: its row has no caption.")
        return self._source.decode(path, image_id)

    def _part(self, images: list[np.ndarray], texts: list[list[str]], failed: dict[int, _Fault]) -> _Part:
        if not images:
            nothing = torch.empty(0)
            return _Part(nothing, nothing, None, self._share, 0, failed)
        tokens = self._tokenize([text for of_image in texts for text in of_image])
        # A text that fills the whole context was cut there, or fits exactly.
        cut = int(torch.count_nonzero(tokens[:, -1] != self._padding))
        several = self._rows.drawing.texts > 1
        owners = torch.repeat_interleave(torch.tensor([len(of_image) for of_image in texts])) if several else None
        return _Part(torch.from_numpy(np.stack(images)), tokens, owners, self._share, cut, failed)


def _from(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1


class _From(Sampler[int]):
    """A sampler for `DataLoader`: every step from the first."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        return _from(self._first)
