"""Sharding of large files in a run of its own: a tick must be short, and reading gigabytes takes long."""

import dagster as dg

from caploom.config.factory import Factory
from caploom.inbox.scan import scan_inbox
from caploom.stages.shards import create_new_shards, shard_names, unread_state
from dagster_project.assets.materialization import user_errors
from dagster_project.jobs import CUT_SHARDS
from dagster_project.partitions import SHARD
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import automatic_tags

LARGEST_IN_A_TICK = 100_000_000
"""Bytes of a source or of a file in the inbox: about 15 s. Dagster ends a tick after 60 s."""


def sharding_run(key: str, why: str) -> dg.RunRequest:
    """The request that a sensor makes for a run of the job below, once per `key`."""
    return dg.RunRequest(run_key=key, job_name=CUT_SHARDS, tags=automatic_tags(why))


def cut_new_shards(factory: Factory, instance: dg.DagsterInstance) -> list[str]:
    """Split the source's new rows into shards; returns the shards that the instance has no partitions of yet.

    Raises `SourceError` when the source cannot be read.
    """
    create_new_shards(factory)
    known = set(instance.get_dynamic_partitions(SHARD))
    return [shard for shard in shard_names(factory) if shard not in known]


def shards_at_the_start(factory: Factory, instance: dg.DagsterInstance) -> None:
    """Have a small source's shards there before anybody looks; larger ones are split by a run that the sensor asks for.

    Raises `SourceError` when the source cannot be read.
    """
    unread = unread_state(factory)
    if unread is None or unread.size <= LARGEST_IN_A_TICK:
        instance.add_dynamic_partitions(SHARD, cut_new_shards(factory, instance))


def shard_everything(factory: Factory) -> list[str]:
    """Shard the source's new rows and the inbox's complete files, however large; returns a sentence for each step."""
    made = create_new_shards(factory)
    messages = [f"{made[0]} to {made[-1]}: created from the source."] if made else []
    return [*messages, *scan_inbox(factory).messages]


@dg.op(name="cut_new_rows", out=dg.Out(dg.Nothing), description="Splits new rows into shards; the sensors do the rest.")
def _cut(context: dg.OpExecutionContext, factory: FactoryResource) -> None:
    with user_errors():
        for sentence in shard_everything(factory.open(context.run.run_id)):
            context.log.info(sentence)


@dg.job(name=CUT_SHARDS, description="Splits files that are too large for a sensor's tick into shards.")
def cut_shards_job() -> None:
    """One op."""
    _cut()
