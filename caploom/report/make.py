"""The `ablation_report` stage: what every recipe reached, what made the difference and what it cost."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from caploom.config.factory import Factory
from caploom.errors import MissingArtifactError
from caploom.questions.results.data_versions import LeftOut, RecipeVersions, data_versions
from caploom.questions.results.latest_results import latest_results
from caploom.questions.results.results import ArmResult
from caploom.stages.graph import Graph, graph_of
from caploom.stages.stage import Ref, Stage
from caploom.storage.store import Artifact, Draft, Plan

if TYPE_CHECKING:
    from caploom.report.sections import Content

KIND = "ablation_report"
CODE_VERSION = "5"


def make_report(factory: Factory | Graph) -> Artifact:
    """Write the report over all measured recipes, unless it is written.

    Files: `report.html`, which needs no other; `report.md` with `charts/*.svg`; `results.json`, every figure.

    Where a recipe was measured on earlier versions of its data, those measurements are inputs too, after the recipes'
    own. A recipe that is not measured on the present data yet is shown as it was last measured (see `latest_results`).
    """
    graph = graph_of(factory)
    found, recorded = latest_results(graph), graph.recorded_facts(Ref(KIND))
    if recorded is not None:
        found = replace(found, on_earlier_data=recorded.get("on_earlier_data", {}))
    arms = found.arms
    if not arms:
        raise MissingArtifactError("No recipe has been measured yet: materialize retrieval_metrics of a recipe first.")
    left_out = recorded.get("versions_left_out", {}) if recorded is not None else None
    versions = _several_versions(graph, arms, left_out)
    not_shown = {recipe: each.left_out.to_dict() for recipe, each in versions.items() if each.left_out.to_dict()}
    measured = [arm.metrics for arm in arms]
    measured += [each for recipe in versions.values() for one in recipe.versions for each in one.metrics.values()]
    plan = Plan(
        kind=KIND,
        code_version=CODE_VERSION,
        configuration={
            "factory": graph.config.name,
            "waiting": [recipe.name for recipe in found.waiting],
            **({"on_earlier_data": dict(found.on_earlier_data)} if found.on_earlier_data else {}),
            **({"versions_left_out": not_shown} if not_shown else {}),
        },
        inputs=tuple({each.manifest.address: each.as_input() for each in measured}.values()),
    )

    def build(draft: Draft) -> None:
        from caploom.report.content import report_content  # the graph imports this module, and needs no page

        content = report_content(graph.factory, found, versions)
        _write(draft, content)
        draft.summary = {"recipes": len({arm.recipe.base for arm in arms}), "verdicts": content.verdicts}

    return graph.store.make(plan, build)


def _several_versions(
    graph: Graph, arms: Sequence[ArmResult], left_out: Mapping[str, Mapping[str, int]] | None
) -> dict[str, RecipeVersions]:
    """By their names without a seed, the recipes that were measured on several versions of their data.

    `left_out` is what the store has besides, a recipe's `LeftOut` as numbers: looked up, unless given.
    """
    first = {arm.recipe.base: arm for arm in reversed(arms)}
    recipes = dict.fromkeys(arm.recipe.base for arm in arms)
    found = {recipe: data_versions(graph, recipe, like=first[recipe].metrics) for recipe in recipes}
    several = {recipe: each for recipe, each in found.items() if len(each.versions) > 1}
    if left_out is None:
        return several
    return {recipe: replace(each, left_out=LeftOut(**left_out.get(recipe, {}))) for recipe, each in several.items()}


def _write(draft: Draft, content: "Content") -> None:
    from caploom.report.markdown import markdown_report
    from caploom.report.page import html_report

    (draft.folder / "report.html").write_text(html_report(content), encoding="utf-8")
    (draft.folder / "report.md").write_text(markdown_report(content), encoding="utf-8")
    (draft.folder / "results.json").write_text(json.dumps(content.results, indent=2) + "\n", encoding="utf-8")
    charts = [chart for section in content.sections for chart in section.charts]
    if charts:
        (draft.folder / "charts").mkdir()
    for chart in charts:
        (draft.folder / "charts" / f"{chart.name}.svg").write_text(chart.svg, encoding="utf-8")


def _in_words(configuration: Mapping[str, Any]) -> str:
    waiting = configuration.get("waiting", [])
    return f"factory {configuration['factory']}" + (f", {len(waiting)} recipes not measured yet" if waiting else "")


ABLATION_REPORT = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=(),
    keys=lambda graph: [()] if any(recipe.is_measured for recipe in graph.recipes.values()) else [],
    recipes=lambda recipe: recipe.is_measured,
    settings=lambda graph, key: {"factory": graph.config.name},
    upstream=("retrieval_metrics",),
    inputs=lambda graph, key: graph.refs("retrieval_metrics"),
    make=lambda graph, key, tools: make_report(graph),
    shown=lambda configuration: {"name": configuration["factory"]},
    words=_in_words,
    cost=None,
    reads_images=True,
    partial=True,
    fact_keys=frozenset({"on_earlier_data", "versions_left_out"}),
)
