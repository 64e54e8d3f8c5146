"""The two ways from pictures to captions, each with an empty store."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import caploom.captioning.transformers_backend  # noqa: F401 - its own imports are not to be measured
from benchmarks.child import Done, Job
from caploom.captioning.backend import Backend, load_backend
from caploom.config.factory import Factory
from caploom.stages.captions import caption_shard, check_captions
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import check_raw_pairs, ingest_shard
from caploom.stages.shards import create_new_shards

_NAME = "measured"
_KINDS = ("shards", "raw_pairs", "captions")


def dagster(job: Job) -> Done:
    """As the headless run does it; the definitions are part of the run."""
    from dagster_project.run import HeadlessRun

    os.environ.pop("DAGSTER_HOME", None)  # the instance is to lie in the store
    with _config(job) as path:
        with job.measured():
            run = HeadlessRun(path, None)
            shards = run.run_captions()
        if run.failures:
            raise RuntimeError("\n".join(run.failures))
        return _done(job, run.factory, len(shards))


def plain(job: Job) -> Done:
    """The same calls of the library; the model is loaded for the first shard that has something to caption."""
    loaded: list[Backend] = []
    seconds = 0.0

    def load() -> Backend:
        nonlocal seconds
        if not loaded:
            began = time.perf_counter()
            loaded.append(load_backend(factory.config.captioners[_NAME], factory.store))
            seconds = time.perf_counter() - began
        return loaded[0]

    with _config(job) as path:
        with job.measured():
            factory = Factory.from_yaml(path)
            shards = create_new_shards(factory)
            graph = Graph(factory)
            for shard in shards:
                check_raw_pairs(graph, ingest_shard(graph, shard))
            for shard in shards:
                check_captions(graph, caption_shard(graph, _NAME, shard, load))
            for backend in loaded:
                backend.close()
        return _done(job, factory, len(shards), load_s=seconds)


@contextmanager
def _config(job: Job) -> Iterator[Path]:
    """The YAML of a factory without artifacts, whose shards have the case's number of pairs."""
    reader = {"reader": "image_captions", "root": "pictures", "captions": "captions.json"}
    with tempfile.TemporaryDirectory(dir=job.folder) as store:
        settings = {
            "name": "orchestration",
            "store": store,
            "pairs": reader,
            "shard_size": job.options["pairs"],
            "captioners": {_NAME: job.options["captioner"]},
            "trainers": {"any": {"model": "picture-book", "steps": 1, "batch_size": 1}},
            "evaluation_sets": {"any": reader},
            "recipes": {"raw-only": {"captioners": []}},
        }
        path = job.folder / f"{Path(store).name}.yaml"
        path.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
        yield path


def _done(job: Job, factory: Factory, shards: int, **figures: float) -> Done:
    artifacts = sorted(
        (each.manifest.address, each.data_version) for kind in _KINDS for each in factory.store.list(kind)
    )
    return Done(job.size, {"shards": shards, "artifacts": artifacts, **figures})
