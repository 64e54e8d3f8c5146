"""Captions from a server that speaks OpenAI's protocol: vLLM, SGLang, Ollama, `transformers serve`, or a paid one.

Many requests are in flight at once: such a server joins them into batches and replaces a finished text by the next
one, which a batch in this process cannot.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from caploom.captioning.backend import CanaryRow, Captioned, Chunk, Failed, Generation, ImageRef, settled
from caploom.captioning.endpoint_client import ERROR, GARBAGE, REFUSED, TIMEOUT, EndpointFault
from caploom.captioning.endpoint_servers import open_endpoint_client
from caploom.captioning.settings import EndpointCaptioner
from caploom.errors import CaptionerError
from caploom.images.decode import ImageFault
from caploom.storage.store import Store

IN_A_ROW = 8
"""After this many images in a row without a caption, the server is at fault, and not the images."""

_NO_ANSWER = {ERROR, TIMEOUT, GARBAGE}
_PROBE_SIDE = 224


@dataclass(frozen=True, slots=True)
class _Done:
    """A finished task: its result, and when it began and ended, by the monotonic clock."""

    ref: ImageRef
    answer: Generation | Failed | BaseException
    began: float
    ended: float


class EndpointBackend:
    """See `Backend`. A thread per request in flight decodes its image, sends it, and waits for the answer.

    `CaptionerError` when the key is not set, when nothing answers at the url, when the server rejects the key, model or
    address, when it refuses all images, and when it has stopped answering.
    """

    def __init__(self, settings: EndpointCaptioner, store: Store) -> None:
        self.device = "endpoint"
        self.facts: dict[str, Any] = {}
        self._settings = settings
        self._client = open_endpoint_client(settings)
        self._kept = 0
        # Unanswered images since the last caption, and images refused before any was captioned.
        self._unanswered = 0
        self._refused = 0
        self._takes_images = False

    def caption(self, refs: Iterable[ImageRef]) -> Generator[Chunk, None, None]:
        """See `Backend.caption`. At most twice `concurrency` are taken from `refs` ahead of their results.

        When it raises, images without a result are in no chunk: they are missing, not failed.
        """
        pool = _ThreadPool(self._settings.concurrency, self._caption_one)
        since = time.monotonic()
        # Failures that may turn out to be the server's: they count as the images' once it captions an image that was
        # sent later.
        held: list[tuple[float, Failed]] = []
        try:
            for batch in pool.results(refs):
                now = time.monotonic()
                generations = sum(isinstance(done.answer, Generation) for done in batch)
                share, since = (now - since) / max(1, generations), now
                captioned, failed, trouble = self._sorted(batch, share, held)
                trouble = trouble or self._trouble_of(held)
                if captioned or failed:
                    self._kept += len(captioned)
                    yield Chunk(captioned, failed)
                if trouble is not None:
                    raise trouble
        finally:
            pool.stop()
        if held:
            yield Chunk([], [failure for _, failure in held])

    def canary(self, refs: Sequence[ImageRef]) -> list[CanaryRow] | None:
        """None: the server decides what is batched."""
        return None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _caption_one(self, ref: ImageRef) -> Generation | Failed:
        try:
            return self._client.ask(ref, ref.opened())
        except ImageFault as fault:
            return Failed(ref, fault.reason, fault.detail)
        except EndpointFault as fault:
            return Failed(ref, fault.reason, f"{ref.image}: {fault.detail}")

    def _sorted(
        self, batch: Sequence[_Done], seconds: float, held: list[tuple[float, Failed]]
    ) -> tuple[list[Captioned], list[Failed], BaseException | None]:
        """Captions, failures, and what ends the run; failures that may be the server's go to `held` with their time."""
        captioned: list[Captioned] = []
        failed: list[Failed] = []
        trouble: BaseException | None = None
        for done in batch:
            answer = done.answer
            if isinstance(answer, Generation):
                result = settled(done.ref, answer, seconds)
                if isinstance(result, Captioned):
                    captioned.append(result)
                else:
                    failed.append(result)
                self._takes_images, self._unanswered = True, 0
                failed += [failure for ended, failure in held if ended < done.began]
                held[:] = [(ended, failure) for ended, failure in held if ended >= done.began]
            elif isinstance(answer, BaseException):
                trouble = trouble or answer
            elif answer.reason in _NO_ANSWER:
                held.append((done.ended, answer))
                self._unanswered += 1
            elif answer.reason == REFUSED and not self._takes_images:
                held.append((done.ended, answer))
                self._refused += 1
            else:
                failed.append(answer)
        return captioned, failed, trouble

    def _trouble_of(self, held: Sequence[tuple[float, Failed]]) -> CaptionerError | None:
        url, model = ", ".join(self._settings.url), self._settings.model
        many = len(self._settings.url) > 1
        if self._unanswered >= IN_A_ROW:
            self._unanswered = 0
            return CaptionerError(
                f"{url}: the endpoint{'s do' if many else ' does'} not answer any longer "
                f"({held[-1][1].detail.rstrip('.')}); {self._kept:,} captions of this run are kept: run it again when "
                f"{'one of them' if many else 'it'} is back."
            )
        if self._refused >= IN_A_ROW and not self._takes_images:
            self._refused = 0
            refusal = self._refusal_of_any_image()
            if refusal is not None:
                return CaptionerError(
                    f"{url}: {refusal.rstrip('.')}, even to a plain grey image; correct what the captioner asks of "
                    f'"{model}" (its decoding, system_prompt, extra_body), or name a model that takes images.'
                )
        return None

    def _refusal_of_any_image(self) -> str | None:
        """The server's objection to an image without faults, if it refuses that too."""
        from PIL import Image

        probe = Image.new("RGB", (_PROBE_SIDE, _PROBE_SIDE), "grey")
        try:
            self._client.ask(ImageRef("probe", "", "a plain grey image"), probe)
        except EndpointFault as fault:
            return fault.detail if fault.reason == REFUSED else None
        self._takes_images = True
        return None


class _ThreadPool:
    """Threads that work through tasks; results come in the order in which they are done.

    They are daemons and never joined: an interrupted run must not hang on requests whose answers nobody reads any more.
    """

    def __init__(self, size: int, task: Callable[[ImageRef], Generation | Failed]) -> None:
        self._size = size
        self._task = task
        self._tasks: queue.SimpleQueue[ImageRef | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Done] = queue.SimpleQueue()
        self._threads = 0
        self._stopped = threading.Event()

    def results(self, refs: Iterable[ImageRef]) -> Iterator[list[_Done]]:
        """Batches of all finished tasks, as soon as there is one; at most twice `size` tasks are pending."""
        coming = iter(refs)
        pending, ended = 0, False
        while True:
            while not ended and pending < 2 * self._size:
                ref = next(coming, None)
                ended = ref is None
                if ref is not None:
                    self._give(ref)
                    pending += 1
            if not pending:
                return
            batch = [self._done.get()]
            while not self._done.empty():
                batch.append(self._done.get())
            pending -= len(batch)
            yield batch

    def stop(self) -> None:
        """Let every thread end after its current task; tasks not yet begun are dropped."""
        self._stopped.set()
        for _ in range(self._threads):
            self._tasks.put(None)

    def _give(self, ref: ImageRef) -> None:
        self._tasks.put(ref)
        if self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._run, daemon=True, name=f"endpoint-{self._threads}").start()

    def _run(self) -> None:
        while (ref := self._tasks.get()) is not None and not self._stopped.is_set():
            began = time.monotonic()
            answer: Generation | Failed | BaseException
            try:
                answer = self._task(ref)
            # Any exception is raised again in the thread that waits for the answers.
            except BaseException as error:  # noqa: BLE001
                answer = error
            self._done.put(_Done(ref, answer, began, time.monotonic()))
