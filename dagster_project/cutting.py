"""Cutting large files into shards in a run of its own: a tick may not take long, and reading gigabytes does."""

import dagster as dg

from caploom.config.factory import Factory
from caploom.inbox.scan import look_into_inbox
from caploom.stages.shards import cut_new_shards
from dagster_project.assets.materialization import user_errors
from dagster_project.jobs import CUT_SHARDS
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import automatic_tags

LARGEST_IN_A_TICK = 100_000_000
"""Bytes of a source or of a file in the inbox: about 15 s. A tick is ended after 60 s."""


def cutting_run(key: str, why: str) -> dg.RunRequest:
    """What a sensor asks for: a run of the job below, once for each `key`."""
    return dg.RunRequest(run_key=key, job_name=CUT_SHARDS, tags=automatic_tags(why))


def cut_everything(factory: Factory) -> list[str]:
    """Cut what is new in the source and complete in the inbox, however large; returns a sentence for each step."""
    made = cut_new_shards(factory)
    said = [f"{made[0]} to {made[-1]}: cut from the source."] if made else []
    return [*said, *look_into_inbox(factory).said]


@dg.op(name="cut_new_rows", out=dg.Out(dg.Nothing), description="Cuts new rows into shards; the sensors do the rest.")
def _cut(context: dg.OpExecutionContext, factory: FactoryResource) -> None:
    with user_errors():
        for sentence in cut_everything(factory.open(context.run.run_id)):
            context.log.info(sentence)


@dg.job(name=CUT_SHARDS, description="Cuts files that are too large for a sensor's tick into shards.")
def cut_shards_job() -> None:
    """One op."""
    _cut()
