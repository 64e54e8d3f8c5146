"""Caploom's side: the merge of the `training_set` stage, and its JSON writer alone."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.child import Done, Job
from benchmarks.merge.inputs import CHECKED, checksum, rows_checksum, shard_files
from caploom.common.hashing import file_sha256, fingerprint
from caploom.training_set.buckets import Buckets
from caploom.training_set.filters import PreparedFilters
from caploom.training_set.settings import MixSettings
from caploom.training_set.training_json import TrainingJson
from caploom.training_set.write import write_training_set


def merge(job: Job) -> Done:
    """Options: images; json, whether the JSON is written too."""
    images, with_json = job.options["images"], job.options["json"]
    with tempfile.TemporaryDirectory(dir=job.folder) as name:
        folder = Path(name)
        with job.measured():
            write_merged(job.folder, images, folder, json=with_json)
        captions, total = result(folder, images)
        files = hashes(folder)
    return Done(captions, {"images": images, "captions": captions, "checksum": total, "files": files})


def hashes(folder: Path) -> str:
    """One hash of the files in a folder, their names and bytes."""
    return fingerprint({path.name: file_sha256(path) for path in sorted(folder.iterdir())})


def write_json(job: Job) -> Done:
    """Options: images. From the rows of a finished training set."""
    with tempfile.TemporaryDirectory(dir=job.folder) as name:
        path = Path(name, "training.json")
        files = sorted((job.folder / f"rows-{job.options['images']}").glob("rows-*.parquet"))
        with job.measured(), TrainingJson(path) as file:
            for rows in _tables(files):
                file.write(rows)
        captions, total = _json_result(path, job.options["images"])
    return Done(captions, {"images": job.options["images"], "captions": captions, "checksum": total})


def write_merged(inputs: Path, images: int, folder: Path, *, json: bool) -> None:
    """Merge the first `images` images with the mix `uniform`."""
    pairs, sheared = shard_files(inputs, images)
    with Buckets(pairs, sheared, folder, seed=0) as buckets:
        write_training_set(buckets, PreparedFilters("benchmark"), MixSettings(), folder, json=json)


def _tables(files: list[Path]) -> Iterator[pa.Table]:
    for path in files:
        yield pq.read_table(path, columns=["image", "captions", "sources"], use_threads=False, partitioning=None)


def result(folder: Path, images: int) -> tuple[int, int | None]:
    """How many captions the rows hold and, where they are few enough, their checksum."""
    files = sorted(folder.glob("rows-*.parquet"))
    if images <= CHECKED:
        return rows_checksum(files)
    lists = (pq.read_metadata(path).num_rows for path in files)
    return sum(lists) * 5, None


def _json_result(path: Path, images: int) -> tuple[int, int | None]:
    count = total = 0
    with path.open("rb") as file:
        for line in file:
            if line[:1] != b"{":
                continue
            count += 1
            if images <= CHECKED:
                entry = json.loads(line.rstrip(b",\n"))
                total += checksum([(entry["image"], entry["caption"])])
    return count, total if images <= CHECKED else None
