"""The merge of a training set as tasks of a Ray cluster, which read and write through the store; see ADR 15.

Through this process pass counts, what filters need to know of all captions (a number each), and the sizes of rows, from
which follows where files end. It holds none of them longer than a bucket's turn.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from caploom.common.executors import RayExecutor
from caploom.common.progress import Progress
from caploom.common.ray_cluster import connected
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.errors import CaploomError, ClusterError
from caploom.stages.scores import scorer_of
from caploom.storage.records import DROPPED
from caploom.storage.store import Artifact, Draft
from caploom.training_set.buckets import CAPTIONS_OF_IMAGES, COPIES, count_buckets, source_names
from caploom.training_set.exclusions import Exclusions
from caploom.training_set.filter_context import FilterContext
from caploom.training_set.filters import PreparedFilters, prepare_filters
from caploom.training_set.mixes import training_rows
from caploom.training_set.on_ray.exchange import exchange_for
from caploom.training_set.on_ray.work import (
    JSON,
    Cut,
    Finished,
    Job,
    Piece,
    Table,
    cut,
    finish,
    look_at,
    measure,
    write,
    write_json,
)
from caploom.training_set.row_files import Cuts, file_name
from caploom.training_set.tally import Tally

_T = TypeVar("_T")
_PAIRS, _SHEARED = "pairs.parquet", "sheared.parquet"
_TRIES = 10
"""How often a task is started again when its process or its node is lost: a bucket that no process survives ends it."""
_WAITING = 2  # tasks for each CPU, so that none waits for this process
_GROUP_TABLES = 256
_FLUSHES = 8  # of a task that cuts: fewer, larger files


def reads_much(factory: Factory, artifacts: Sequence[Artifact]) -> bool:
    """Whether the cluster is to merge these tables."""
    if not isinstance(factory.config.executor, RayExecutor):
        return False
    files = [each.manifest.files.get(name) for each in artifacts for name in (_PAIRS, _SHEARED)]
    size = sum(file.size for file in files if file is not None)
    return size > factory.config.merge.ray_above_gb * 1e9


def merge_on_ray(
    factory: Factory,
    recipe: Recipe,
    draft: Draft,
    fingerprint: str,
    inputs: tuple[Sequence[Artifact], Sequence[Artifact]],
    seed: int,
    left_out: Exclusions,
    progress: Progress | None = None,
) -> tuple[Tally, int]:
    """Write the files of a training set into the draft; its counts, and how many rows came in.

    inputs: the raw pairs, and the sheared captions. Raises `ClusterError` when the cluster cannot be used, and what the
    merge on one machine raises.
    """
    executor = factory.config.executor
    assert isinstance(executor, RayExecutor)
    pairs, sheared = inputs
    tables = [Table(each.manifest.address, _PAIRS, None) for each in pairs]
    tables += [Table(each.manifest.address, _SHEARED, each.manifest.configuration["captioner"]) for each in sheared]
    exchange = exchange_for(factory.store, fingerprint, draft.folder, factory.config.merge.spill)
    try:
        sources = source_names(table.captioner for table in tables if table.captioner is not None)
        job = Job(factory.config.store, exchange, sources, seed)
        with connected(executor) as ray:
            cluster = _Cluster(ray, executor, factory.config.merge.memory_bytes)
            run = _Run(cluster, job, factory, recipe)
            with cluster.explained():
                return run.run(tables, left_out, draft.folder, progress)
    finally:
        exchange.clear()


class _Cluster:
    """Starts tasks: so many at a time as there are CPUs for, and each with the memory that it may hold."""

    def __init__(self, ray: ModuleType, executor: RayExecutor, memory: int) -> None:
        self.memory = memory
        self._ray, self._executor = ray, executor
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = max((node.get("memory", 0.0) for node in nodes), default=0.0)
        if memory > most:
            raise ClusterError(
                f"merge.memory_gb: a task asks for {memory / 1e9:g} GB and the largest node of the Ray cluster offers "
                f"{most / 1e9:.1f}; lower it."
            )
        self.parallel = int(sum(node.get("CPU", 0.0) for node in nodes)) or 1

    def put(self, value: Any) -> Any:
        """A value that every task gets without its being sent again."""
        return self._ray.put(value)

    def map(self, function: Callable[..., _T], calls: Iterable[tuple[Any, ...]], *, gpu: bool = False) -> Iterator[_T]:
        """What the calls give, in their order; as many run as there is room for, and no result waits long."""
        held: dict[str, float] = {"num_cpus": 1, "memory": self.memory, "max_retries": _TRIES}
        at_once = _WAITING * self.parallel
        if gpu and self._executor.gpus_per_worker:
            held |= {"num_gpus": self._executor.gpus_per_worker}
            at_once = _WAITING * self._executor.workers
        task = self._ray.remote(function).options(**held)
        waiting: deque[Any] = deque()
        try:
            for call in calls:
                waiting.append(task.remote(*call))
                if len(waiting) >= at_once:
                    yield self._ray.get(waiting.popleft())
            while waiting:
                yield self._ray.get(waiting.popleft())
        finally:
            for each in waiting:
                self._ray.cancel(each, force=True)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """An error of ours that a task raised is raised here as it was."""
        try:
            yield
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, CaploomError):
                raise cause from None
            raise
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError) as error:
            said = str(error).strip().splitlines()[0]
            raise ClusterError(
                f"merge: a task's process died {_TRIES + 1} times ({said}); give the nodes more memory, or lower "
                "`merge.memory_gb`."
            ) from None


@dataclass(frozen=True)
class _ClusterScan:
    """The scan of buckets on the cluster."""

    cluster: _Cluster
    job: Any
    cuts: Any
    count: int

    def each(self, look: Callable[[pa.Table], _T], *, loads_model: bool = False) -> Iterator[_T]:
        """As `Scan`."""
        shared = self.cluster.put(look)
        calls = ((self.job, self.cuts, shared, number) for number in range(self.count))
        return self.cluster.map(look_at, calls, gpu=loads_model)


@dataclass
class _Files:
    """Cuts rows into files as they come: of a bucket's sizes, the files that are complete with them."""

    kind: str
    cuts: Cuts = field(default_factory=Cuts)
    pieces: list[Piece] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(self, bucket: int, sizes: np.ndarray) -> Iterator[tuple[str, list[Piece]]]:
        """Count a bucket's rows in."""
        for start, end, ends in self.cuts.add(sizes):
            self.pieces.append(Piece(bucket, start, end))
            if ends:
                yield self._complete()

    def rest(self, *, at_least_one: bool) -> Iterator[tuple[str, list[Piece]]]:
        """The last file."""
        if self.pieces or (at_least_one and not self.names):
            yield self._complete()

    def _complete(self) -> tuple[str, list[Piece]]:
        pieces, self.pieces = self.pieces, []
        self.names.append(file_name(self.kind, len(self.names)))
        return self.names[-1], pieces


class _Run:
    """One merge."""

    def __init__(self, cluster: _Cluster, job: Job, factory: Factory, recipe: Recipe) -> None:
        self._cluster, self._plain_job = cluster, job
        self._job = cluster.put(job)
        self._factory, self._recipe = factory, recipe

    def run(
        self, tables: Sequence[Table], left_out: Exclusions, folder: Path, progress: Progress | None
    ) -> tuple[Tally, int]:
        """All of it."""
        recipe = self._recipe
        cuts, count = self._cut(tables)
        rows_in = sum(each.rows_in for each in cuts)
        shared = self._cluster.put(cuts)
        scan = _ClusterScan(self._cluster, self._job, shared, count)
        context = FilterContext(self._factory.store, recipe.name, recipe.captioners, scorer_of(self._factory))
        filters = prepare_filters(recipe.filters, scan, context, left_out)
        json = self._factory.config.training_json
        tally = Tally()
        rows, dropped = _Files("rows"), _Files("dropped")
        writes = self._writes(
            self._finished(shared, count, filters, json), rows, dropped, tally, filters, progress, rows_in
        )
        for _ in self._cluster.map(write, writes):
            pass
        filters.refuse_if_all_dropped()
        names = [*rows.names, *dropped.names]
        if json:
            list(self._cluster.map(write_json, [(self._job, count)]))
            names.append(JSON)
        self._plain_job.exchange.give(names, folder)
        tally.reasons.update(filters.dropped)
        return tally, rows_in

    def _cut(self, tables: Sequence[Table]) -> tuple[list[Cut], int]:
        groups = [tables[start : start + _GROUP_TABLES] for start in range(0, len(tables), _GROUP_TABLES)]
        size = sum(self._cluster.map(measure, ((self._job, group) for group in groups)))
        count = count_buckets(size, self._cluster.memory)
        flush = max(self._cluster.memory // COPIES, 1)
        # Fewer tasks than tables, so that a bucket's pieces are no crumbs; and not fewer than can work at once.
        share = max(size // (_FLUSHES * flush), min(len(tables), self._cluster.parallel), 1)
        step = max(-(-len(tables) // share), 1)
        parts = [tables[start : start + step] for start in range(0, len(tables), step)]
        calls = ((self._job, number, part, count, flush) for number, part in enumerate(parts))
        return list(self._cluster.map(cut, calls)), count

    def _finished(self, cuts: Any, count: int, filters: PreparedFilters, json: bool) -> Iterator[Finished]:
        judges = self._cluster.put(filters.judges)
        mix = self._recipe.mix
        calls = ((self._job, cuts, judges, mix, json, number) for number in range(count))
        return self._cluster.map(finish, calls)

    def _writes(
        self,
        finished: Iterator[Finished],
        rows: _Files,
        dropped: _Files,
        tally: Tally,
        filters: PreparedFilters,
        progress: Progress | None,
        rows_in: int,
    ) -> Iterator[tuple[Any, ...]]:
        """The calls of `write`, each as soon as the buckets that it needs are finished."""
        schema = training_rows(CAPTIONS_OF_IMAGES.empty_table(), self._recipe.mix).schema

        def calls(kind: str, of: pa.Schema, files: Iterable[tuple[str, list[Piece]]]) -> Iterator[tuple[Any, ...]]:
            return ((self._job, kind, name, pieces, of) for name, pieces in files)

        for number, bucket in enumerate(finished):
            tally.add(bucket.tally)
            filters.count(bucket.seen, bucket.dropped)
            yield from calls("rows", schema, rows.add(number, bucket.rows))
            yield from calls("dropped", DROPPED, dropped.add(number, bucket.lost))
            if progress is not None:
                failed = tally.reasons.total() + sum(filters.dropped.values())
                progress(tally.out + failed, rows_in, failed)
        yield from calls("rows", schema, rows.rest(at_least_one=True))
        yield from calls("dropped", DROPPED, dropped.rest(at_least_one=False))
