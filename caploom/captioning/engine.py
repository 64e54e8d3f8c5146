"""Runs a model over images in batches: decodes ahead of the generation, and isolates failing images."""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from caploom.captioning.backend import Captioned, Chunk, Failed, Generation, ImageRef, settled
from caploom.errors import CaptionerError
from caploom.images.decode import ImageFault

if TYPE_CHECKING:
    from PIL.Image import Image

SORTED_BATCHES = 16  # batches that are sorted by length together
_MAX_BATCH_PIXELS = 300_000_000  # of the decoded images of a batch: about 0.9 GB
_HOPELESS = 64  # consecutive failed images, after which the model is at fault and not they


class BatchModel(Protocol):
    """A model that captions batches of decoded images."""

    device: str

    def prepare(self, images: "Sequence[Image]", refs: Sequence[ImageRef]) -> Any:
        """Make the model's inputs from RGB images. Runs in other threads, ahead of `generate`."""
        ...

    def generate(self, prepared: Any) -> list[Generation]:
        """One generation per image, in their order. Raises whatever the model raises."""
        ...

    def length(self, ref: ImageRef) -> float:
        """The approximate length of an image's prompt in tokens, or 0 when all are equal; it affects only the speed."""
        ...

    def free_memory(self) -> None:
        """Called after the memory ran out, before a smaller batch."""
        ...


@dataclass
class _Batch:
    """A batch of opened images: the readable ones with their inputs or the error, and the faulty ones."""

    refs: list[ImageRef]
    prepared: Any = None
    error: BaseException | None = None
    failed: list[Failed] = field(default_factory=list)


class BatchEngine:
    """Captions with one model. `batch_size` shrinks permanently when a batch does not fit in memory."""

    def __init__(self, model: BatchModel, batch_size: int, prefetch: int = 2) -> None:
        self._model = model
        self.batch_size = batch_size
        self._prefetch = prefetch
        self._failures_in_a_row = 0

    def caption(self, refs: Iterable[ImageRef]) -> Generator[Chunk, None, None]:
        """Caption images; every image comes back once, captioned or failed, with the caption of that very image.

        Images whose prompts are of about the same length share a batch. Raises `CaptionerError` when the model fails on
        everything.
        """
        self._failures_in_a_row = 0
        with closing(self._opened(self._batches(iter(refs)))) as batches:
            for batch in batches:
                yield self._finish(batch)

    def _batches(self, refs: Iterator[ImageRef]) -> Iterator[list[ImageRef]]:
        """Cut images into batches of at most `batch_size` images and `_MAX_BATCH_PIXELS` pixels."""
        while window := list(islice(refs, self.batch_size)):
            if any(self._model.length(ref) for ref in window):
                window += islice(refs, self.batch_size * (SORTED_BATCHES - 1))
                # Longest first, so that a batch that does not fit in memory fails early.
                window.sort(key=self._model.length, reverse=True)
            batch: list[ImageRef] = []
            pixels = 0
            for ref in window:
                size = ref.width * ref.height
                if batch and (len(batch) >= self.batch_size or pixels + size > _MAX_BATCH_PIXELS):
                    yield batch
                    batch, pixels = [], 0
                batch.append(ref)
                pixels += size
            yield batch

    def _opened(self, batches: Iterator[list[ImageRef]]) -> Generator[_Batch, None, None]:
        """Batches with their images decoded and prepared, `prefetch` of them ahead in other threads."""
        if not self._prefetch:
            yield from map(self._open, batches)
            return
        pool = ThreadPoolExecutor(max_workers=self._prefetch, thread_name_prefix="prepare")
        waiting: deque[Future[_Batch]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(self._open, batch))
                if len(waiting) > self._prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _open(self, refs: Sequence[ImageRef]) -> _Batch:
        batch = _Batch([])
        images = []
        for ref in refs:
            try:
                images.append(ref.opened())
                batch.refs.append(ref)
            except ImageFault as fault:
                batch.failed.append(Failed(ref, fault.reason, fault.detail))
        if images:
            try:
                batch.prepared = self._model.prepare(images, batch.refs)
            # A processor may raise anything on a strange image: `_finish` finds out which one it is.
            except Exception as error:  # noqa: BLE001
                batch.error = error
        return batch

    def _finish(self, batch: _Batch) -> Chunk:
        """Generate for a batch; when it fails, for its halves, until the faulty image is alone."""
        if not batch.refs:
            return Chunk([], batch.failed)
        if len(batch.refs) > self.batch_size:  # it was prepared before the memory ran out
            return self._in_halves(batch)
        started = time.perf_counter()
        generations, error = self._generate(batch)
        if error is None:
            seconds = (time.perf_counter() - started) / len(batch.refs)
            self._failures_in_a_row = 0
            return _chunk(batch, generations, seconds)
        out_of_memory = _is_out_of_memory(error)
        if out_of_memory:
            self._model.free_memory()
        if len(batch.refs) > 1:
            if out_of_memory:
                self.batch_size = len(batch.refs) // 2
            return self._in_halves(batch)
        ref = batch.refs[0]
        reason = "out_of_memory" if out_of_memory else "generation_error"
        detail = f"{ref.image}: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _HOPELESS:
            raise CaptionerError(
                f"The captioner failed on {_HOPELESS} images in a row, so it is not the images; the last was {detail}"
            )
        return Chunk([], [*batch.failed, Failed(ref, reason, detail)])

    def _generate(self, batch: _Batch) -> tuple[list[Generation], Exception | None]:
        if isinstance(batch.error, Exception):
            return [], batch.error
        try:
            return self._model.generate(batch.prepared), None
        except CaptionerError:
            raise
        # A model may raise anything: the batch is halved, and finally one image becomes a failure row.
        except Exception as error:  # noqa: BLE001
            # The traceback's frames hold the batch's tensors, whose memory a smaller batch needs.
            return [], error.with_traceback(None)
        finally:
            batch.prepared = None

    def _in_halves(self, batch: _Batch) -> Chunk:
        batch.prepared = None
        middle = len(batch.refs) // 2
        halves = [self._finish(self._open(half)) for half in (batch.refs[:middle], batch.refs[middle:])]
        return Chunk(
            [item for half in halves for item in half.captioned],
            [*batch.failed, *(item for half in halves for item in half.failed)],
        )


def _chunk(batch: _Batch, generations: Sequence[Generation], seconds: float) -> Chunk:
    results = [settled(ref, generation, seconds) for ref, generation in zip(batch.refs, generations, strict=True)]
    return Chunk(
        [item for item in results if isinstance(item, Captioned)],
        [*batch.failed, *(item for item in results if isinstance(item, Failed))],
    )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; torch has several errors and messages for it, and this module does not import it."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in words or "can't allocate memory" in words
