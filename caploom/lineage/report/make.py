"""The `ablation_report` stage: what every recipe reached, what made the difference and what it cost."""

import json

from caploom.errors import MissingArtifactError
from caploom.factory import Factory
from caploom.lineage.report.content import report_content
from caploom.lineage.report.markdown import markdown_report
from caploom.lineage.report.sections import Content
from caploom.lineage.results import finished_arms
from caploom.store import Artifact, Draft, Plan

KIND = "ablation_report"
CODE_VERSION = "4"


def make_report(factory: Factory) -> Artifact:
    """Write the report over all measured recipes, unless it is written.

    Files: `report.html`, which needs no other; `report.md` with `charts/*.svg`; `results.json`, every figure.
    """
    arms, waiting = finished_arms(factory)
    if not arms:
        raise MissingArtifactError("No recipe has been measured yet: materialize retrieval_metrics of a recipe first.")
    plan = Plan(
        kind=KIND,
        code_version=CODE_VERSION,
        configuration={"factory": factory.config.name, "waiting": [recipe.name for recipe in waiting]},
        inputs=tuple(arm.metrics.as_input() for arm in arms),
    )

    def build(draft: Draft) -> None:
        content = report_content(factory, arms, waiting)
        _write(draft, content)
        draft.summary = {"recipes": len({arm.recipe.base for arm in arms}), "verdicts": content.verdicts}

    return factory.store.make(plan, build)


def _write(draft: Draft, content: Content) -> None:
    from caploom.lineage.report.page import html_report

    (draft.folder / "report.html").write_text(html_report(content), encoding="utf-8")
    (draft.folder / "report.md").write_text(markdown_report(content), encoding="utf-8")
    (draft.folder / "results.json").write_text(json.dumps(content.results, indent=2) + "\n", encoding="utf-8")
    charts = [chart for section in content.sections for chart in section.charts]
    if charts:
        (draft.folder / "charts").mkdir()
    for chart in charts:
        (draft.folder / "charts" / f"{chart.name}.svg").write_text(chart.svg, encoding="utf-8")
