"""The `ablation_report` asset."""

from collections.abc import Iterator

import dagster as dg

from caploom.common.hashing import fingerprint
from caploom.errors import MissingArtifactError
from caploom.report.make import ABLATION_REPORT, make_report
from caploom.report.markdown import without_files
from dagster_project.assets.dependencies import ByHand, FactoryAssets
from dagster_project.assets.materialization import result, user_errors
from dagster_project.conditions import follow_new_measurements
from dagster_project.report_pages import reports_url
from dagster_project.resources.factory import FactoryResource
from dagster_project.tags import WHY_TAG


def ablation_report_assets(assets: FactoryAssets) -> list[dg.AssetsDefinition]:
    """The asset over the recipes that are measured."""

    @assets.asset(
        ABLATION_REPORT,
        code_version=fingerprint([ABLATION_REPORT.code_version, assets.config.name]),
        automation_condition=follow_new_measurements(),
        output_required=False,  # see below
        group_name="experiments",
        kinds={"html", "markdown"},
        metadata=_where(),
        description=f"What every recipe of {assets.config.name} reached, in one table, and which won by how much.",
    )
    def ablation_report(context: dg.AssetExecutionContext, factory: FactoryResource) -> Iterator[dg.MaterializeResult]:
        try:
            with user_errors(but=MissingArtifactError):
                artifact = make_report(factory.graph(context))
                text = without_files(artifact.file("report.md").read_text(encoding="utf-8"))
        except MissingArtifactError as error:
            if WHY_TAG not in context.run.tags:
                raise dg.Failure(description=str(error), allow_retries=False) from None
            # The YAML was edited after the measurement that asked for this report: the next one asks again.
            context.log.warning(f"{error} The settings were changed since this was asked for.")
            return
        page = dg.MetadataValue.path(str(artifact.file("report.html")))
        yield result(artifact, extra={"report": dg.MetadataValue.md(text), "page": page})

    return [ablation_report]


def _where() -> dict[str, dg.MetadataValue]:
    """A link to the newest report, while `dagster_project.ui` serves it."""
    url = reports_url()
    return {"report page": dg.MetadataValue.url(url)} if url else {}


BY_HAND = ByHand(ABLATION_REPORT, ablation_report_assets)
