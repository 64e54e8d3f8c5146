"""The cases: a store's own questions at a number of shards, and Dagster's records of as many partitions."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.child import Done, Job


class _Clock:
    """Seconds of each part, by its name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[f"{name}_s"] = time.perf_counter() - began


def questions(job: Job) -> Done:
    """The catalog from nothing, after one more shard and unchanged; its queries; the listings."""
    from caploom.catalog.catalog import open_catalog
    from caploom.catalog.files import CATALOG_FILE, stamps
    from caploom.catalog.query import ask
    from caploom.config.factory import Factory
    from caploom.stages.raw_pairs import ingested_shards
    from caploom.stages.shards import list_shards

    shards = job.options["shards"]
    clock = _Clock()
    factory = Factory.from_yaml(job.folder / f"factory-{shards}" / "factory.yaml")
    root = factory.store.root.resolve()
    (root / CATALOG_FILE).unlink(missing_ok=True)
    with job.measured():
        with clock.of("walk"):
            manifests = len(stamps(root))
        with clock.of("catalog_first"), open_catalog(factory.store):
            pass
        size = (root / CATALOG_FILE).stat().st_size
        with clock.of("catalog_unchanged"), open_catalog(factory.store):
            pass
        asked = {
            "count_by_kind": "select kind, count(*) from manifests group by kind",
            "failed_by_captioner": "select name[1], sum(rows_failed) from manifests where kind = 'captions' group by 1",
            "captions_of_a_shard": "select count(*) from ledger where shard = 'shard-00000'",
        }
        for name, query in asked.items():
            with open_catalog(factory.store) as catalog, clock.of(name):
                ask(catalog, factory.store, query)
        with clock.of("list_shards"):
            listings = list_shards(factory)
        with clock.of("ingested_shards"):
            ingested_shards(factory)
    rows = {"manifests": manifests, "listings": len(listings), "catalog_mb": size / 1e6}
    return Done(manifests, {**rows, **clock.seconds})


def dagster_records(job: Job) -> Done:
    """Partitions added, materializations reported and asked for, in Dagster's SQLite."""
    import dagster as dg

    shards = job.options["shards"]
    clock = _Clock()
    with tempfile.TemporaryDirectory() as home:
        os.environ["DAGSTER_HOME"] = home
        Path(home, "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
        with dg.DagsterInstance.get() as instance, job.measured():
            names = [f"shard-{number:05d}" for number in range(shards)]
            with clock.of("add_partitions"):
                instance.add_dynamic_partitions("shards", names)
            with clock.of("read_partitions"):
                instance.get_dynamic_partitions("shards")
            key = dg.AssetKey(["captions", "any"])
            metadata = {"captions": 10_000, "seconds": 1.0, "path": "/store/captions/any", "mean_tokens": 21.5}
            with clock.of("materializations"):
                for name in names:
                    event = dg.AssetMaterialization(key, partition=name, metadata=metadata)
                    instance.report_runless_asset_event(event)
            with clock.of("materialized_partitions"):
                found = instance.get_materialized_partitions(key)
            with clock.of("latest_of_a_partition"):
                instance.get_latest_materialization_event(key)
        size = sum(path.stat().st_size for path in Path(home).rglob("*") if path.is_file())
    return Done(len(found), {"bytes_an_event": size / shards, **clock.seconds})
