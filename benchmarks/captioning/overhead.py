"""What the engine costs beside the work itself: Caploom's side again, with the work's calls timed from within.

The work is what every captioner must do: read and decode an image, the processor (resizing among it), and `generate`.
Everything else is overhead: hashing files, threads, reading texts off tokens, rows, the ledger.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import caploom.captioning.backend as captioner
import caploom.images.decode as images
from benchmarks.captioning.caploom_engine import caption_into_ledger
from benchmarks.captioning.inputs import BATCH_SIZE, PHOTOS, captioner_settings, image_refs
from benchmarks.child import Done, Job
from caploom.captioning.backend import load_backend
from caploom.captioning.ledger import Ledger
from caploom.captioning.stop_criterion import PerRowStopping
from caploom.storage.opening import open_store


def run(job: Job) -> Done:
    """Options as of `caploom_engine`. Gives shares of the CPU seconds, and of the wall seconds.

    `overhead`: CPU seconds of the process outside the work, over all. `stopping`: of the work, those of deciding which
    rows have their sentence. `main_thread`: what the generating thread computes outside `generate`, over the wall
    seconds: for so long nothing is generated although a batch is there.
    """
    cpu = _CpuSeconds()
    cpu.time(images, "read_image_file", "read")
    cpu.time(captioner, "decode_image", "decode")
    cpu.time(PerRowStopping, "__call__", "stopping")
    cpu.time(Ledger, "append", "ledger")
    refs = image_refs(job.folder / PHOTOS)
    settings = captioner_settings(job.options["model"], job.options["prompt"], job.options["max_new_tokens"])
    with TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        backend: Any = load_backend(settings, store)
        # Of their own classes: BLIP-2, for one, has a `generate` around the one that most models inherit.
        cpu.time(type(backend._family), "inputs", "processor")
        cpu.time(type(backend._model), "generate", "generate")
        caption_into_ledger(backend, refs[:BATCH_SIZE], store, "warm-up")
        cpu.reset()
        with job.measured():
            main_thread = time.thread_time()
            caption_into_ledger(backend, refs, store, "shard")
            main_thread = time.thread_time() - main_thread
    work = sum(cpu.seconds[name] for name in ("read", "decode", "processor", "generate"))
    return Done(
        len(refs),
        {
            "overhead": 1 - work / job.cpu_s,
            "stopping": cpu.seconds["stopping"] / job.cpu_s,
            "main_thread": (main_thread - cpu.seconds["generate"]) / job.wall_s,
            **{f"{name}_cpu_s": seconds for name, seconds in cpu.seconds.items()},
        },
    )


class _CpuSeconds:
    """CPU seconds of functions, each counted in the thread that calls it. torch runs with one thread here."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def reset(self) -> None:
        self.seconds.clear()

    def time(self, owner: Any, function: str, name: str) -> None:
        """Replace a function of a module or class by one that is timed."""
        called: Callable[..., Any] = getattr(owner, function)

        def timed(*positional: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return called(*positional, **named)
            finally:
                spent = time.thread_time() - started
                with self._lock:
                    self.seconds[name] += spent

        setattr(owner, function, timed)
