"""Resized images on disk: what a model looks at, decoded once and mapped into memory by every training after.

An artifact for each shard of raw pairs and each size, so that all recipes share it and a new shard costs itself alone.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caploom.common.progress import StageBar
from caploom.config.factory import Factory
from caploom.errors import StoreError
from caploom.images.decode import ImageFault
from caploom.images.moves import STAYED, Moves
from caploom.stages.graph import Graph, graph_of
from caploom.stages.moves import moves_of
from caploom.stages.raw_pairs import ingested_shards
from caploom.stages.stage import Stage
from caploom.storage.records import FAILURES
from caploom.storage.records import RESIZED_IMAGES as RESIZED_SCHEMA
from caploom.storage.store import Artifact, Draft, Plan
from caploom.storage.tables import count_rows, failure, read_table, table_of, write_failures, write_table
from caploom.training.settings import BlipTrainerSettings, ClipTrainerSettings

if TYPE_CHECKING:
    from caploom.training.images import ImageDecoder

KIND = "resized_images"
CODE_VERSION = "1"

_AT_ONCE = 256  # images decoded before they are written

Say = Callable[[str], None]


def resized_images(
    factory: Factory | Graph,
    settings: ClipTrainerSettings | BlipTrainerSettings,
    bar: StageBar | None = None,
    say: Say = lambda line: None,
) -> list[Path]:
    """The folders of the resized images of every ingested shard, made unless they are made; `say` states their size.

    Raises `StoreError` when the disk has no room for them.
    """
    from caploom.training.objectives import create_objective

    decoder = create_objective(settings, seed=0).decoder
    graph = graph_of(factory)
    factory, shards = graph.factory, ingested_shards(graph)
    wanted = [(pairs, _plan(pairs, decoder)) for pairs in shards]
    missing = [pairs for pairs, plan in wanted if factory.store.find(plan) is None]
    if missing:
        _state_size(factory, missing, decoder, say)
    workers = max(1, settings.workers)
    moves = moves_of(graph) if missing else STAYED
    return [_make(factory, pairs, plan, decoder, workers, bar, moves).folder for pairs, plan in wanted]


def _plan(pairs: Artifact, decoder: "ImageDecoder") -> Plan:
    preprocessing = decoder.preprocessing
    return Plan(
        kind=KIND,
        name=("x".join(map(str, decoder.shape[1:])),),
        code_version=CODE_VERSION,
        configuration={
            "shape": list(decoder.shape),
            "interpolation": preprocessing.interpolation,
            "resize_mode": preprocessing.resize_mode,
        },
        inputs=(pairs.as_input(),),
    )


def _state_size(factory: Factory, missing: list[Artifact], decoder: "ImageDecoder", say: Say) -> None:
    images = sum(int(pairs.manifest.summary["images"]) for pairs in missing)
    size = images * int(np.prod(decoder.shape))
    stated = f"{images:,} x {' x '.join(map(str, decoder.shape))} bytes = {size / 1e6:,.1f} MB"
    free = shutil.disk_usage(factory.store.root).free
    if size > free:
        raise StoreError(
            f"{factory.store.root}: the resized images need {stated}, and the disk has {free / 1e6:,.1f} MB left; make "
            "room, or set the trainer's resized_cache to false."
        )
    say(f"resized images: {stated}, in {factory.store.root / KIND}")


def _make(
    factory: Factory,
    pairs: Artifact,
    plan: Plan,
    decoder: "ImageDecoder",
    workers: int,
    bar: StageBar | None,
    moves: Moves,
) -> Artifact:
    def build(draft: Draft) -> None:
        table = moves.of_table(read_table(pairs.file("pairs.parquet"), ["image_id", "image", "path"]))
        # Pairs that share an image are one.
        images = list({row["image_id"]: row for row in table.to_pylist()}.values())
        progress = bar.part() if bar is not None else None
        kept: list[dict[str, Any]] = []
        failures: list[dict[str, Any]] = []
        shape = (len(images), *decoder.shape)
        path = draft.folder / "all.npy"
        # An opened file and not an array of its size: the pixels of a shard need not fit into memory.
        pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        for done, (row, found) in enumerate(_decoded(images, decoder, workers), start=1):
            if isinstance(found, ImageFault):
                failures.append(failure(KIND, row["image_id"], row["image"], found.reason, found.detail))
            else:
                pixels[len(kept)] = found
                kept.append(row)
            if progress is not None:
                progress(done, len(images), len(failures))
        pixels.flush()
        _cut(path, draft.folder / "pixels.npy", len(kept))
        ids = table_of([{"image_id": row["image_id"]} for row in kept], RESIZED_SCHEMA)
        write_table(ids, draft.folder / "images.parquet")
        write_failures(failures, draft.folder)
        draft.rows = count_rows("images", len(images), len(kept), failures)
        draft.summary = {"images": len(kept), "bytes": len(kept) * int(np.prod(decoder.shape))}

    return factory.store.make(plan, build)


def _decoded(
    images: list[dict[str, Any]], decoder: "ImageDecoder", workers: int
) -> Iterator[tuple[dict[str, Any], np.ndarray | ImageFault]]:
    def decode(row: dict[str, Any]) -> np.ndarray | ImageFault:
        try:
            return decoder.decode(row["path"], row["image_id"])
        except ImageFault as fault:
            return fault

    with ThreadPoolExecutor(workers) as threads:  # decoding and resizing let go of the interpreter
        for start in range(0, len(images), _AT_ONCE):
            block = images[start : start + _AT_ONCE]
            yield from zip(block, threads.map(decode, block), strict=True)


def _cut(whole: Path, target: Path, count: int) -> None:
    """Leave the first `count` images; as most often all of them are there, nothing is copied then."""
    pixels = np.load(whole, mmap_mode="r")
    if count == len(pixels):
        whole.rename(target)
        return
    kept = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(count, *pixels.shape[1:]))
    for start in range(0, count, _AT_ONCE):
        kept[start : start + _AT_ONCE] = pixels[start : min(start + _AT_ONCE, count)]
    kept.flush()
    whole.unlink()


RESIZED_IMAGES = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("part",),
    keys=lambda graph: [],  # for trainers that ask for them
    name_parts=("size",),
    hidden=True,
    unit="images",
    cost=None,
    tables={"images.parquet": RESIZED_SCHEMA, "failures.parquet": FAILURES},
    reads_images=True,
    remake="caploom.reproduce.remake:resize",
)
