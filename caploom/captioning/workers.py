"""Several GPUs of one machine: one process per device, each with the model, sharing one stream of images."""

import multiprocessing
import queue
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Any

from caploom.captioning.backend import Backend, CanaryRow, Chunk, ImageRef
from caploom.captioning.engine import SORTED_BATCHES
from caploom.captioning.settings import TransformersCaptioner
from caploom.errors import CaptionerError

LoadOn = Callable[[TransformersCaptioner, str], Backend]
"""Loads a captioner on a device, in the calling process."""

_PATIENCE = 0.5  # seconds between checks that the other side is alive
_END: tuple[str, list[ImageRef]] = ("end", [])


@dataclass
class _Worker:
    """A worker's process, the queue of its tasks, and the number of its unfinished images."""

    process: BaseProcess
    tasks: Any
    facts: dict[str, Any] = field(default_factory=dict)
    under_way: int = 0


class WorkerPool:
    """Workers that each hold the model on a device of their own; see `Backend`.

    Each batch goes to the worker with the least work. Raises `CaptionerError` when a worker dies.
    """

    def __init__(self, settings: TransformersCaptioner, devices: Sequence[str], load: LoadOn) -> None:
        self._settings = settings
        self._load = load
        self._devices = devices
        self.device = ", ".join(devices)
        # As much as a worker's engine takes before it returns anything, and one batch more.
        self._enough = settings.batch_size * (SORTED_BATCHES + settings.prefetch + 2)
        self._workers: list[_Worker] = []
        self._start()

    @property
    def facts(self) -> dict[str, Any]:
        """What each device's worker reports."""
        return {"devices": {worker.process.name: worker.facts for worker in self._workers}}

    def caption(self, refs: Iterable[ImageRef]) -> Generator[Chunk, None, None]:
        """See `Backend.caption`."""
        if not self._workers:
            self._start()
        pieces = _pieces(iter(refs), self._settings.batch_size)
        try:
            while self._hand_out(pieces):
                yield self._receive_chunk()
            for worker in self._workers:
                worker.tasks.put(_END)
            while any(worker.under_way for worker in self._workers):
                yield self._receive_chunk()
        except BaseException:
            self.close()  # a caller that stopped early leaves workers with work that nobody waits for
            raise

    def canary(self, refs: Sequence[ImageRef]) -> list[CanaryRow]:
        """See `Backend.canary`: one of the workers runs it."""
        self._workers[0].tasks.put(("canary", list(refs[:64])))
        rows: list[CanaryRow] = self._receive()[1]
        return rows

    def close(self) -> None:
        """End the workers; `caption` would start them again."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.tasks.cancel_join_thread()
        self._workers = []

    def _start(self) -> None:
        # Spawned and not forked: CUDA and torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._results: Any = context.Queue()
        for number, device in enumerate(self._devices):
            tasks = context.Queue()
            arguments = (number, self._settings, device, self._load, tasks, self._results)
            process = context.Process(target=_work, args=arguments, name=f"{number}:{device}", daemon=True)
            process.start()
            self._workers.append(_Worker(process, tasks))
        try:
            for _ in self._workers:
                number, facts = self._receive()
                self._workers[number].facts = facts
        except BaseException:
            self.close()
            raise

    def _hand_out(self, pieces: Iterator[list[ImageRef]]) -> bool:
        """Hand batches to the workers until all have enough; False when there are no more."""
        while True:
            idlest = min(self._workers, key=lambda worker: worker.under_way)
            if idlest.under_way >= self._enough:
                return True
            piece = next(pieces, None)
            if piece is None:
                return False
            idlest.under_way += len(piece)
            idlest.tasks.put(("caption", piece))

    def _receive_chunk(self) -> Chunk:
        number, report = self._receive()
        chunk: Chunk = report
        self._workers[number].under_way -= len(chunk.captioned) + len(chunk.failed)
        return chunk

    def _receive(self) -> tuple[int, Any]:
        """A worker's number and its report; raises the error that it reports, or a `CaptionerError` when it died."""
        while True:
            try:
                number, report = self._results.get(timeout=_PATIENCE)
            except queue.Empty:
                self._all_alive()
                continue
            if isinstance(report, BaseException):
                raise report
            return number, report

    def _all_alive(self) -> None:
        for worker in self._workers:
            if not worker.process.is_alive():
                raise CaptionerError(
                    f"{self._settings.label}: the worker {worker.process.name} died (exit code "
                    f"{worker.process.exitcode}; -9 often means that memory ran out); its captions are kept: run "
                    "again, with a smaller batch_size if need be."
                )


def _pieces(refs: Iterator[ImageRef], size: int) -> Iterator[list[ImageRef]]:
    while piece := list(islice(refs, size)):
        yield piece


def _work(number: int, settings: TransformersCaptioner, device: str, load: LoadOn, tasks: Any, results: Any) -> None:
    """A worker's main loop: load, report facts, then caption until the pool or its process ends."""
    try:
        backend = load(settings, device)
        results.put((number, backend.facts))
        while True:
            for chunk in backend.caption(_arriving(number, backend, tasks, results)):
                results.put((number, chunk))
    except (KeyboardInterrupt, _PoolIsGone):
        return
    except CaptionerError as error:
        results.put((number, error))
    # Any error must reach the pool's process, which would otherwise wait for this worker.
    except Exception as error:  # noqa: BLE001
        sentence = f"{settings.label}: the worker on {device} failed ({type(error).__name__}: {error})."
        results.put((number, CaptionerError(sentence)))


class _PoolIsGone(Exception):
    """The pool's process was killed, so nobody will end this worker."""


def _arriving(number: int, backend: Any, tasks: Any, results: Any) -> Iterator[ImageRef]:
    """The images of one `WorkerPool.caption`."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while True:
        try:
            what, refs = tasks.get(timeout=_PATIENCE)
        except queue.Empty:
            if not parent.is_alive():
                raise _PoolIsGone from None
            continue
        if what == "end":
            return
        if what == "canary":
            results.put((number, backend.canary(refs)))
        else:
            yield from refs
