"""What runs on the cluster: finding what is missing, decoding, captioning into the ledger, writing a shard's tables."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from caploom.captioning.backend import Chunk, Failed, ImageRef, load_backend
from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.ledger import KIND, Ledger, LedgerWriter
from caploom.config.factory import Factory
from caploom.config.factory_config import FactoryConfig
from caploom.images.decode import ImageFault
from caploom.stages.canaries import canary_plan, pass_canary
from caploom.stages.captions import shard_work
from caploom.stages.captions_work import LedgerRows, Outcome
from caploom.stages.graph import Graph
from caploom.stages.stage import Ref

if TYPE_CHECKING:
    from PIL.Image import Image

_TOGETHER, _ALONE = 2, 2
"""So many deaths of the captioner's process in a batch, and its images are tried one by one; so many on an image alone,
and it is that image's fault: a node may be lost once while anything is tried."""

_REF = ("image_id", "path", "image", "raw_caption", "width", "height")
MISSING = pa.schema(
    [
        ("shard", pa.string()),
        *((name, pa.int64() if name in ("width", "height") else pa.string()) for name in _REF),
        ("failed_before", pa.int64()),
        ("pair_id", pa.string()),
        ("listed", pa.int64()),
    ]
)
"""Images to caption; `listed` is how many the shard has of them."""

DECODED = pa.schema(
    [
        *MISSING,
        ("rgb", pa.large_binary()),
        ("rgb_width", pa.int64()),
        ("rgb_height", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""The same with their pixels, or why there are none."""

RESULTS = pa.schema(
    [
        ("shard", pa.string()),
        ("asked", pa.int64()),
        ("listed", pa.int64()),
        ("seconds", pa.float64()),
        ("wall", pa.float64()),
        ("failures", pa.string()),
        ("facts", pa.string()),
        ("device", pa.string()),
    ]
)
"""What came of some images of one shard; their captions are in the ledger."""


@dataclass(frozen=True)
class RayTask:
    """What is to be done, wherever it is done."""

    config: FactoryConfig
    captioner: str
    run_id: str | None = None

    def factory(self) -> Factory:
        """The factory, opened where this is called."""
        return Factory.from_config(self.config, run_id=self.run_id)


@dataclass(frozen=True)
class Lister:
    """Lists the images of shards that the ledger has no captions of."""

    task: RayTask

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        """MISSING of each of the shards."""
        graph, captioner = Graph(self.task.factory()), self.task.captioner
        for shard in shards["shard"].to_pylist():
            work = shard_work(graph, captioner, shard, graph.plan(Ref(KIND, (captioner, shard))))
            rows = [
                {
                    "shard": shard,
                    **{name: getattr(ref, name) for name in _REF},
                    "failed_before": work.rows.attempts.get(ref.image_id, 0),
                    "pair_id": work.rows.pairs.get(ref.image_id),
                    "listed": len(work.missing),
                }
                for ref in work.missing
            ]
            yield pa.Table.from_pylist(rows, schema=MISSING)


def decode(images: pa.Table) -> pa.Table:
    """DECODED of MISSING."""
    pixels = [_pixels(ImageRef(**{name: row[name] for name in _REF})) for row in images.to_pylist()]
    names = [name for name in DECODED.names if name not in MISSING.names]
    added = {name: pa.array([each[name] for each in pixels], DECODED.field(name).type) for name in names}
    return pa.table({**{name: images[name] for name in MISSING.names}, **added}, schema=DECODED)


def _pixels(ref: ImageRef) -> dict[str, Any]:
    nothing = {"rgb": None, "rgb_width": 0, "rgb_height": 0, "reason": None, "detail": None}
    try:
        image = ref.opened()
    except ImageFault as fault:
        return {**nothing, "reason": fault.reason, "detail": fault.detail}
    return {**nothing, "rgb": image.tobytes(), "rgb_width": image.width, "rgb_height": image.height}


class CaptionWorker:
    """Holds the captioner; captions what comes and keeps it in the ledger.

    Each batch leaves a mark before it begins: who finds marks knows that a process died over it, leaves out what the
    ledger has by now, and after some deaths tries the images one by one, to find whose fault it is.
    """

    def __init__(self, task: RayTask) -> None:
        self._task = task
        self._factory = task.factory()
        settings = task.config.captioners[task.captioner]
        self._fingerprint = captioner_fingerprint(settings)
        self._backend = load_backend(settings, self._factory.store)
        self._ledger = Ledger(self._factory.store, task.captioner, self._fingerprint)

    def __call__(self, images: pa.Table) -> pa.Table:
        """RESULTS of DECODED."""
        shards = dict.fromkeys(images["shard"].to_pylist())
        return pa.Table.from_pylist([self._caption(shard, images) for shard in shards], schema=RESULTS)

    def _caption(self, shard: str, images: pa.Table) -> dict[str, Any]:
        began = time.perf_counter()
        rows = images.filter(pc.equal(images["shard"], shard)).to_pylist()
        ledger = self._ledger
        made = LedgerRows(
            self._task.captioner,
            self._fingerprint,
            {row["image_id"]: row["failed_before"] for row in rows},
            {row["image_id"]: row["pair_id"] for row in rows if row["pair_id"] is not None},
        )
        refs = [_ref(row) for row in rows if row["reason"] is None]
        failed = [Failed(_ref(row), row["reason"], row["detail"]) for row in rows if row["reason"] is not None]
        batch = hashlib.sha256("\n".join(row["image_id"] for row in rows).encode()).hexdigest()[:24]
        deaths = ledger.mark(shard, f"begun-{batch}")
        if deaths:
            kept = ledger.kept_of(shard)
            refs = [ref for ref in refs if ref.image_id not in kept]
        seconds = 0.0
        alone = deaths >= _TOGETHER
        with LedgerWriter(ledger, shard) as writer:
            for chunk in self._alone(refs, ledger, shard) if alone else self._backend.caption(refs):
                captions = [made.of(item) for item in chunk.captioned]
                if alone:  # kept before the next image may kill the process: else it would count against this one
                    ledger.append(shard, captions)
                else:
                    writer.append(captions)
                failed += chunk.failed
                seconds += sum(item.seconds for item in chunk.captioned)
        return {
            "shard": shard,
            "asked": len(rows),
            "listed": rows[0]["listed"],
            "seconds": seconds,
            "wall": time.perf_counter() - began,
            "failures": json.dumps([made.failure(item) for item in failed]),
            "facts": json.dumps(self._backend.facts),
            "device": self._backend.device,
        }

    def _alone(self, refs: Iterable[ImageRef], ledger: Ledger, shard: str) -> Iterator[Chunk]:
        for ref in refs:
            deaths = ledger.mark(shard, f"alone-{ref.image_id}")
            if deaths < _ALONE:
                yield from self._backend.caption([ref])
            else:
                detail = f"{ref.image}: the captioner's process died {deaths} times over this image alone."
                yield Chunk([], [Failed(ref, "captioner_died", detail)])


def _ref(row: dict[str, Any]) -> ImageRef:
    return ImageRef(**{name: row[name] for name in _REF}, pixels=_image(row))


def _image(row: dict[str, Any]) -> "Image | None":
    from PIL import Image

    return Image.frombytes("RGB", (row["rgb_width"], row["rgb_height"]), row["rgb"]) if row["rgb"] is not None else None


def ask_the_canary(task: RayTask, shards: Sequence[str]) -> None:
    """See `pass_canary`; the captioner is loaded only when it must be asked. Raises `CanaryError`."""
    graph = Graph(task.factory())
    factory = graph.factory
    settings = task.config.captioners[task.captioner]
    fingerprint = captioner_fingerprint(settings)
    if factory.store.find(canary_plan(task.captioner, fingerprint)) is not None:
        return
    for shard in shards:
        missing = shard_work(graph, task.captioner, shard, graph.plan(Ref(KIND, (task.captioner, shard)))).missing
        if missing:
            backend = load_backend(settings, factory.store)
            try:
                pass_canary(factory.store, task.captioner, fingerprint, backend, missing)
            finally:
                backend.close()
            return


def finish_shard(task: RayTask, shard: str, outcome: Outcome, last: bool = False) -> bool:
    """Write the tables of a shard; False, and nothing written, where images are still to come, unless it is the `last`.

    The last one raises `StoreError` when an image has neither a caption nor a failure.
    """
    graph = Graph(task.factory())
    plan = graph.plan(Ref(KIND, (task.captioner, shard)))
    work = shard_work(graph, task.captioner, shard, plan)
    failed = {row["key"] for row in outcome.failures}
    if not last and any(ref.image_id not in failed for ref in work.missing):
        return False
    graph.store.make(plan, lambda draft: work.write(draft, outcome))
    work.ledger.sweep(shard)
    return True
