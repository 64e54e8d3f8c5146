"""The job `everything`: the whole graph from whatever is there, as `caploom run` does it, from the UI's launchpad."""

from collections.abc import Callable

import dagster as dg

from caploom.config.factory_config import FactoryConfig
from caploom.questions.results.latest_results import latest_results
from caploom.questions.results.made import made_so_far
from caploom.questions.results.tables import markdown_table
from caploom.questions.results.terminal import results_text
from dagster_project.assets.dependencies import FactoryAssets
from dagster_project.assets.materialization import user_errors
from dagster_project.headless_run import HeadlessRun
from dagster_project.report_pages import reports_url
from dagster_project.resources.factory import FactoryResource

EVERYTHING = "everything"

_GO_ON = "Correct what the sentences name and launch the job again: what is finished is kept."


def everything_job(
    config: FactoryConfig, assets: FactoryAssets, define: Callable[[], dg.Definitions]
) -> dg.JobDefinition:
    """The job of a factory; `define` gives its definitions, of which the job itself is a part."""

    @dg.op(
        name="make_everything",
        out=dg.Out(dg.Nothing),
        description="Splits the source into shards, captions these, runs every recipe and writes the report.",
    )
    def make(context: dg.OpExecutionContext, factory: FactoryResource) -> None:
        with user_errors():
            run = HeadlessRun(config, assets, define(), instance=context.instance, say=context.log.info)
            run.run()
            if run.failures:
                raise dg.Failure(description="\n".join([*run.failures, _GO_ON]), allow_retries=False)
            context.add_output_metadata(_made(run))
        what = "the report is the asset ablation_report" if run.reports else "`caploom export` gives it away"
        context.log.info(f"Everything is made; {what}.")

    @dg.job(
        name=EVERYTHING,
        description="Makes all that is missing or stale, from nothing to the report, and nothing else.",
    )
    def everything() -> None:
        """One op, whose steps are runs of their own in the list of runs."""
        make()

    return everything


def _made(run: HeadlessRun) -> dict[str, dg.MetadataValue]:
    """The results as people look at them first, and where the report is."""
    if not run.reports:
        tables = made_so_far(run.factory).tables()
        return {"made": dg.MetadataValue.md("\n\n".join(map(markdown_table, tables)))}
    text = results_text(latest_results(run.factory), width=200, best_first=True)
    url = reports_url()
    return {"results": dg.MetadataValue.md(text), **({"report": dg.MetadataValue.url(url)} if url else {})}
