"""Captions shards on a Ray cluster: tasks list and decode, workers caption into the ledger, tasks write the tables.

What passes through this process is a row for each batch: how many images it had and why some failed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pyarrow.compute as pc

from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.ledger import KIND as CAPTIONS
from caploom.captioning.ledger import Ledger
from caploom.captioning.settings import EndpointCaptioner, TransformersCaptioner
from caploom.common.executors import RayExecutor
from caploom.common.progress import Progress
from caploom.common.ray_cluster import check_workers, connected
from caploom.config.factory import Factory
from caploom.errors import CaploomError
from caploom.stages.captions import ledger_of
from caploom.stages.captions_work import Outcome
from caploom.stages.graph import Graph, graph_of
from caploom.stages.on_ray.captions_worker import CaptionWorker, Lister, RayTask, ask_the_canary, decode, finish_shard
from caploom.stages.stage import Ref
from caploom.storage.store import Artifact, Plan
from caploom.storage.tables import read_table

_HAND_BATCHES, _HANDS = 32, 4
_HAND_BYTES = 64_000_000
"""What a worker is handed at once: so many of the captioner's batches that it waits little between two hands, no more
decoded pixels than that, and so few that each worker gets some hands."""
_LOOKED_AT = 8  # shards, to know how large the images are
_ROUND = 256  # shards at a time: each is a lock and a folder of parts, which every question to the ledger reads
_RETRIES = 10  # of a task that writes a shard: so often may its node be lost
_IN_FLIGHT = 2  # hands of a worker: the one that it is at, and the next


def caption_shards_on_ray(
    factory: Factory | Graph, captioner: str, shards: Sequence[str], progress: Progress | None = None
) -> dict[str, Artifact]:
    """The captions of some shards, as `caption_shard` makes them, made on the cluster of `executor`.

    Raises `ClusterError` when it cannot be used, `CanaryError` and `CaptionerError` as `caption_shard` does.
    """
    graph = graph_of(factory)
    factory, executor = graph.factory, graph.config.executor
    assert isinstance(executor, RayExecutor)
    plans = {shard: graph.plan(Ref(CAPTIONS, (captioner, shard))) for shard in shards}
    found = _finished(factory, plans)
    unfinished = [shard for shard in shards if shard not in found]
    with ExitStack() as connection:
        run = None
        for start in range(0, len(unfinished), _ROUND):
            some = unfinished[start : start + _ROUND]
            with ExitStack() as claims:
                for shard in some:
                    claims.enter_context(ledger_of(factory, plans[shard]).claimed(shard))
                found |= _finished(factory, {shard: plans[shard] for shard in some})  # whoever had one may have made it
                waiting = [shard for shard in some if shard not in found]
                if not waiting:
                    continue
                if run is None:
                    ray = connection.enter_context(connected(executor))
                    check_workers(ray, executor)
                    run = _Run(ray, graph, captioner, executor, unfinished[start:], progress)
                run.caption(waiting)
                for shard in waiting:
                    found[shard] = factory.store.require(plans[shard], make_with=f"materialize captions/{captioner}")
                    found[shard].reused = False
    return {shard: found[shard] for shard in shards}


def _finished(factory: Factory, plans: Mapping[str, Plan]) -> dict[str, Artifact]:
    made = {shard: factory.store.find(plan) for shard, plan in plans.items()}
    return {shard: artifact for shard, artifact in made.items() if artifact is not None}


class _Run:
    """One captioner over some shards."""

    def __init__(
        self,
        ray: ModuleType,
        graph: Graph,
        captioner: str,
        executor: RayExecutor,
        shards: Sequence[str],
        progress: Progress | None,
    ) -> None:
        self._ray = ray
        self._graph, factory = graph, graph.factory
        self._settings = graph.config.captioners[captioner]
        self._ledger = Ledger(factory.store, captioner, captioner_fingerprint(self._settings))
        self._executor = executor
        self._task = RayTask(factory.config, captioner, factory.store.run_id)
        self._held = {"num_cpus": executor.cpus_per_worker, "num_gpus": executor.gpus_per_worker}
        self._progress = progress
        self._total, self._done, self._failed = self._images(shards), 0, 0

    def caption(self, shards: Sequence[str]) -> None:
        """Caption and finish these shards, each as soon as its last image is done."""
        self._wait([self._remote(ask_the_canary, **self._held).remote(self._task, list(shards))])
        outcomes = {shard: _Gathered() for shard in shards}
        finish = self._remote(finish_shard, num_cpus=1, max_retries=_RETRIES)
        finishing: dict[str, Any] = {}
        before = self._done
        for row in self._results(shards):
            shard, gathered = row["shard"], outcomes[row["shard"]]
            gathered.add(row)
            self._done += row["asked"]
            self._failed += len(gathered.newest)
            self._report()
            if gathered.seems_done and shard not in finishing:
                finishing[shard] = finish.remote(self._task, shard, gathered.outcome())
        finished = dict(zip(finishing, self._wait(list(finishing.values())), strict=True))
        # The others had nothing to caption, or their list was rebuilt when a node died and was shorter then.
        left = [shard for shard in shards if not finished.get(shard)]
        self._wait([finish.remote(self._task, shard, outcomes[shard].outcome(), True) for shard in left])
        for shard in shards:  # a task that was begun twice may have left parts after they were swept
            self._ledger.sweep(shard)
        self._done = before + self._images(shards)
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total, self._failed)

    def _results(self, shards: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        data = self._ray.data
        size = self._hand(shards)
        listed = data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards)).map_batches(
            Lister(self._task), batch_size=1, batch_format="pyarrow", num_cpus=1
        )
        decoded = listed.repartition(target_num_rows_per_block=size).map_batches(
            decode,
            batch_size=size,
            batch_format="pyarrow",
            num_cpus=1,
            compute=data.TaskPoolStrategy(size=self._executor.decoders),
        )
        captioned = decoded.map_batches(
            CaptionWorker,
            fn_constructor_args=(self._task,),
            batch_size=size,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=self._executor.workers, max_tasks_in_flight_per_actor=_IN_FLIGHT),
            **self._held,
        )
        try:
            yield from captioned.iter_rows()
        except self._ray.exceptions.RayError as error:
            raise _own(error) or error from None

    def _hand(self, shards: Sequence[str]) -> int:
        """How many images a worker is handed at once."""
        largest = 0.0
        for shard in shards[:_LOOKED_AT]:
            raw_pairs = self._graph.require(Ref("raw_pairs", (shard,)))
            sides = read_table(raw_pairs.file("pairs.parquet"), ["width", "height"])
            pixels = pc.mean(pc.multiply(sides["width"], sides["height"])).as_py()
            largest = max(largest, pixels or 0.0)
        fair = self._images(shards) // (_HANDS * self._executor.workers)
        batch = self._batch()
        return max(1, min(max(batch, min(_HAND_BATCHES * batch, fair)), int(_HAND_BYTES / (3 * largest or 1))))

    def _batch(self) -> int:
        if isinstance(self._settings, TransformersCaptioner):
            return self._settings.batch_size
        return self._settings.concurrency if isinstance(self._settings, EndpointCaptioner) else 256

    def _images(self, shards: Sequence[str]) -> int:
        found = self._graph.existing(Ref("raw_pairs", (shard,)) for shard in shards)
        return sum(artifact.manifest.summary["images"] for artifact in found)

    def _remote(self, function: Any, **options: float) -> Any:
        return self._ray.remote(function).options(**options)

    def _wait(self, results: Sequence[Any]) -> list[Any]:
        try:
            return list(self._ray.get(list(results)))
        except self._ray.exceptions.RayError as error:
            raise _own(error) or error from None


class _Gathered:
    """What came of a shard's images so far."""

    def __init__(self) -> None:
        self._asked, self._listed, self._seconds, self._wall = 0, 0, 0.0, 0.0
        self._failures: list[dict[str, Any]] = []
        self._facts: Mapping[str, Any] | None = None
        self._devices: set[str] = set()
        self.newest: list[dict[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row of RESULTS in."""
        self.newest = json.loads(row["failures"])
        self._failures += self.newest
        self._asked += row["asked"]
        self._listed = max(self._listed, row["listed"])
        self._seconds += row["seconds"]
        self._wall += row["wall"]
        self._facts = json.loads(row["facts"])
        self._devices.add(row["device"])

    @property
    def seems_done(self) -> bool:
        """Whether all images that were listed have been asked about; the ledger has the last word."""
        return self._asked >= self._listed

    def outcome(self) -> Outcome:
        """All of it; its wall time is the workers', added up."""
        device = ", ".join(sorted(self._devices)) or None
        return Outcome(self._asked, self._failures, self._seconds, self._wall, self._facts, device)


def _own(error: BaseException) -> CaploomError | None:
    """The error of ours that Ray wrapped, once or several times; None when it is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, CaploomError):
            return seen
        inner = getattr(seen, "cause", None)
        seen = inner if isinstance(inner, BaseException) and inner is not seen else seen.__cause__
    return None
