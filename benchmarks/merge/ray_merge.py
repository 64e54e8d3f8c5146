"""The same merge as tasks of a Ray cluster of this machine, which is started before anything is measured."""

import os
import tempfile
from pathlib import Path

from benchmarks.child import Done, Job
from benchmarks.merge.caploom_merge import hashes, result
from benchmarks.merge.inputs import shard_files
from caploom.common.ray_cluster import connected
from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.stages.on_ray.merge import merge_on_ray
from caploom.storage.store import Artifact, Draft, Plan, Store
from caploom.training_set.exclusions import Exclusions


def merge(job: Job) -> Done:
    """Options: images. Parquet and JSON."""
    images = job.options["images"]
    with tempfile.TemporaryDirectory(dir=job.folder) as name:
        factory = _factory(Path(name))
        pairs, sheared = shard_files(job.folder, images)
        inputs = (
            [_artifact(factory.store, "pairs.parquet", file, None) for file in pairs],
            [_artifact(factory.store, "sheared.parquet", file, captioner) for captioner, file in sheared],
        )
        folder = Path(name, "out")
        folder.mkdir()
        recipe = factory.config.recipe("all")
        with connected(factory.config.executor), job.measured():  # type: ignore[arg-type]
            merge_on_ray(factory, recipe, Draft(folder), "0" * 64, inputs, 0, Exclusions())
        captions, total = result(folder, images)
        files = hashes(folder)
    return Done(captions, {"images": images, "captions": captions, "checksum": total, "files": files})


def _factory(folder: Path) -> Factory:
    reader = {"reader": "image_captions", "root": str(folder), "captions": str(folder / "captions.json")}
    settings = {
        "name": "merge",
        "store": str(folder / "store"),
        "pairs": reader,
        "executor": {"kind": "ray", "gpus_per_worker": 0},
        "trainers": {"small": {"model": "picture-book", "steps": 1, "batch_size": 2}},
        "evaluation_sets": {"same": reader},
        "recipes": {"all": {"captioners": []}},
    }
    return Factory.from_config(parse_config(settings, base=folder, source="merge"))


def _artifact(store: Store, name: str, file: Path, captioner: str | None) -> Artifact:
    plan = Plan(kind="tables", name=(file.stem,), code_version="1", configuration={"captioner": captioner})
    return store.make(plan, lambda draft: os.link(file, draft.folder / name))
