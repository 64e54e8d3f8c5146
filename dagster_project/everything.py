"""The job `everything`: the whole graph from whatever is there, as `caploom run` does it, from the UI's launchpad."""

from pathlib import Path

import dagster as dg

from caploom.questions.results.latest_results import latest_results
from caploom.questions.results.made import made_so_far
from caploom.questions.results.tables import markdown_table
from caploom.questions.results.terminal import results_text
from dagster_project.assets.materialization import user_errors
from dagster_project.report_pages import reports_url
from dagster_project.resources.factory import FactoryResource

EVERYTHING = "everything"

_GO_ON = "Correct what the sentences name and launch the job again: what is finished is kept."


@dg.op(
    name="make_everything",
    out=dg.Out(dg.Nothing),
    description="Splits the source into shards, captions these, runs every recipe and writes the report.",
)
def _make(context: dg.OpExecutionContext, factory: FactoryResource) -> None:
    # It resolves the definitions, of which this job is a part.
    from dagster_project.run import HeadlessRun

    with user_errors():
        path = Path(factory.config_path)
        run = HeadlessRun(path, factory.seeds, instance=context.instance, say=context.log.info)
        run.run()
        made = made_so_far(run.factory)
        measured = latest_results(run.factory) if run.reports else None
    if run.failures:
        raise dg.Failure(description="\n".join([*run.failures, _GO_ON]), allow_retries=False)
    metadata: dict[str, dg.MetadataValue] = {
        f"made {number}": dg.MetadataValue.md(markdown_table(table)) for number, table in enumerate(made.tables(), 1)
    }
    if measured is not None:
        text = results_text(measured, width=200, best_first=True)
        metadata["results"] = dg.MetadataValue.md(text)
        context.log.info("Everything is made; the report is the asset ablation_report.")
        if url := reports_url():
            metadata["report"] = dg.MetadataValue.url(url)
    else:
        context.log.info("Everything is made; `caploom export` writes a training set for another trainer.")
    context.add_output_metadata(metadata)


@dg.job(
    name=EVERYTHING,
    description="Makes all that is missing or stale, from nothing to the report, and nothing else; one click.",
)
def everything_job() -> None:
    """One op, whose steps are runs of their own in the list of runs."""
    _make()
