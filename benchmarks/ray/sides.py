"""The sides of the benchmark: the captions of the same shards, made in this process or on a Ray cluster."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.child import Done, Job
from benchmarks.ray.server import MODEL
from caploom.captioning.backend import load_backend
from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.stages.captions import caption_shard, read_captions
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards, list_shards
from caploom.storage.store import Artifact

MILLISECONDS = 5
_SHARDS = 8
_SETTLED = 0.25
"""Of the images, after which the driver has all that it needs: Ray, the tables' readers, the pipeline."""


def factory(folder: Path, size: int, *, store: Path, url: str = "http://127.0.0.1:9/v1", **changes: Any) -> Factory:
    """The factory of the benchmark; its captioner asks the server at `url`."""
    captioner = {"backend": "openai", "url": url, "model": MODEL, "prompt": "What is this?", "concurrency": 8}
    settings = {
        "name": "ray",
        "store": str(store),
        "pairs": {"reader": "image_captions", "root": "pictures", "captions": "captions.json"},
        "shard_size": -(-size // _SHARDS),
        "captioners": {"five": {**captioner, "image_format": "jpeg"}},
        "trainers": {"any": {"model": "picture-book", "steps": 1, "batch_size": 1}},
        "evaluation_sets": {"any": {"reader": "image_captions", "root": "pictures", "captions": "captions.json"}},
        "recipes": {"raw-only": {"captioners": []}},
        **changes,
    }
    return Factory.from_config(parse_config(settings, base=folder, source="the benchmark"))


def ingest(made: Factory) -> None:
    """Take the pictures in, once for all runs."""
    for shard in create_new_shards(made):
        ingest_shard(made, shard)


def local(job: Job) -> Done:
    """One process, as `executor: local` has it."""
    with _served(job) as (made, shards):
        driver = _Driver(job.size)
        with job.measured():
            backend = load_backend(made.config.captioners["five"], made.store)
            done = 0
            artifacts = {}
            for shard in shards:
                artifacts[shard] = caption_shard(
                    made, "five", shard, lambda: backend, lambda n, *_, before=done: driver.note(before + n)
                )
                done += artifacts[shard].manifest.rows.rows_in
        return _done(artifacts, driver, made)


def on_ray(job: Job) -> Done:
    """One worker on a cluster of this machine's own; Ray's own start is measured apart, by connecting to it before."""
    from caploom.common.ray_cluster import connected
    from caploom.stages.on_ray.captions import caption_shards_on_ray

    executor = {"kind": "ray", "workers": 1, "gpus_per_worker": 0, "decoders": 2}
    with _served(job, executor=executor) as (made, shards):
        began = time.perf_counter()
        with connected(made.config.executor):
            start = time.perf_counter() - began
            driver = _Driver(job.size)
            with job.measured():
                artifacts = caption_shards_on_ray(made, "five", shards, lambda n, *_: driver.note(n))
            return _done(artifacts, driver, made, ray_start_s=start)


@contextmanager
def _served(job: Job, **changes: Any) -> Iterator[tuple[Factory, list[str]]]:
    """A store with the ingested shards and no caption, and a captioner that answers."""
    command = [sys.executable, "-m", "benchmarks.ray.server", str(MILLISECONDS)]
    with (
        tempfile.TemporaryDirectory() as scratch,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            store = Path(scratch, "store")
            shutil.copytree(job.folder / "store", store)
            made = factory(job.folder, job.size, store=store, url=url, **changes)
            yield made, [listing.manifest.configuration["shard"] for listing in list_shards(made)]
        finally:
            server.kill()


class _Driver:
    """The memory of this process alone, sampled as the captions come."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._process = psutil.Process()
        self._samples: list[tuple[int, int]] = []

    def note(self, done: int) -> None:
        """Sample what this process holds after so many images."""
        if not self._samples or done - self._samples[-1][0] >= self._size / 100:
            self._samples.append((done, self._process.memory_info().rss))

    @property
    def peak_mb(self) -> float:
        """The most that was seen."""
        return max(rss for _, rss in self._samples) / 1e6

    @property
    def growth_mb(self) -> float:
        """From a quarter of the images to their end."""
        early = max(rss for done, rss in self._samples if done <= _SETTLED * self._size)
        return (max(rss for _, rss in self._samples) - early) / 1e6


def _done(artifacts: Mapping[str, Artifact], driver: _Driver, made: Factory, **figures: float) -> Done:
    digest, count = hashlib.sha256(), 0
    for shard in sorted(artifacts):
        rows = (
            read_captions(artifacts[shard]).select(["image_id", "captioner", "text", "tokens", "attempt"]).to_pylist()
        )
        count += len(rows)
        digest.update(repr(rows).encode())
    memory = {"driver_peak_mb": driver.peak_mb, "driver_growth_mb": driver.growth_mb}
    return Done(count, {"captions": digest.hexdigest(), **memory, **figures})
