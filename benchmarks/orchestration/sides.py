"""The two ways from pictures to captions, each with an empty store."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.child import Done, Job
from caploom.captioning.backend import Backend, load_backend
from caploom.config.factory import Factory
from caploom.stages.captions import caption_shard, check_captions
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import check_raw_pairs, ingest_shard
from caploom.stages.shards import create_new_shards

PAIRS, WARM_UP = "captions.json", "warm-up.json"
_NAME = "measured"
_KINDS = ("shards", "raw_pairs", "captions")


def dagster(job: Job) -> Done:
    """As the headless run does it; the definitions are part of the run."""
    return _measured(job, _headless)


def plain(job: Job) -> Done:
    """The same calls of the library; the model is loaded for the first shard that has something to caption."""
    return _measured(job, _library)


def _measured(job: Job, way: Callable[[Path], tuple[Factory, dict[str, float]]]) -> Done:
    with _config(job, WARM_UP) as path:  # imports what is imported on the way
        way(path)
    with _config(job, PAIRS) as path:
        with job.measured():
            factory, figures = way(path)
        artifacts = sorted(
            (artifact.manifest.address, artifact.data_version)
            for kind in _KINDS
            for artifact in factory.store.list(kind)
        )
    return Done(job.size, {"artifacts": artifacts, **figures})


def _headless(path: Path) -> tuple[Factory, dict[str, float]]:
    from dagster_project.run import headless_run

    os.environ.pop("DAGSTER_HOME", None)  # the instance is to lie in the store
    run = headless_run(path)
    shards = run.run_captions()
    if run.failures:
        raise RuntimeError("\n".join(run.failures))
    return run.factory, {"shards": len(shards)}


def _library(path: Path) -> tuple[Factory, dict[str, float]]:
    loaded: list[Backend] = []
    seconds = 0.0

    def load() -> Backend:
        nonlocal seconds
        if not loaded:
            began = time.perf_counter()
            loaded.append(load_backend(factory.config.captioners[_NAME], factory.store))
            seconds = time.perf_counter() - began
        return loaded[0]

    factory = Factory.from_yaml(path)
    shards = create_new_shards(factory)
    graph = Graph(factory)
    for shard in shards:
        check_raw_pairs(graph, ingest_shard(graph, shard))
    for shard in shards:
        check_captions(graph, caption_shard(graph, _NAME, shard, load))
    for backend in loaded:
        backend.close()
    return factory, {"shards": len(shards), "load_s": seconds}


@contextmanager
def _config(job: Job, pairs: str) -> Iterator[Path]:
    """The YAML of a factory without artifacts, whose shards have the case's number of pairs."""
    captioner = job.options["captioner"]
    settings = {
        "name": "orchestration",
        "pairs": {"reader": "image_captions", "root": "pictures", "captions": pairs},
        "shard_size": job.options["pairs"],
        "captioners": {_NAME: {**captioner, "captions": pairs} if "backend" in captioner else captioner},
        "trainers": {"any": {"model": "picture-book", "steps": 1, "batch_size": 1}},
        "evaluation_sets": {"any": {"reader": "image_captions", "root": "pictures", "captions": pairs}},
        "recipes": {"raw-only": {"captioners": []}},
    }
    with tempfile.TemporaryDirectory(dir=job.folder) as store:
        path = job.folder / f"{Path(store).name}.yaml"
        path.write_text(json.dumps({**settings, "store": store}), encoding="utf-8")  # JSON is YAML
        yield path
