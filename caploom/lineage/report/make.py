"""The `ablation_report` stage: what every recipe reached, in one table, as Markdown, HTML and JSON."""

import html
import json
from collections.abc import Sequence
from pathlib import Path

from caploom.demo.captioner_truth import CaptionerTruth, captioner_truths
from caploom.errors import MissingArtifactError
from caploom.factory import Factory
from caploom.lineage.gallery import data_uri
from caploom.lineage.plots import recall_bars
from caploom.lineage.report.tables import Table, by_label, classification_table, markdown_table, recall_table
from caploom.lineage.results import (
    DIRECTIONS,
    ArmResult,
    ResultRow,
    classification_rows,
    finished_arms,
    percent,
    result_rows,
    verdict,
)
from caploom.recipes import Recipe
from caploom.store import Artifact, Draft, Plan
from caploom.training.checkpoint import FINE_TUNED

KIND = "ablation_report"
CODE_VERSION = "3"


def make_report(factory: Factory) -> Artifact:
    """Write the report over all measured recipes, unless it is written: `report.md`, `report.html`, `results.json`."""
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
        rows = result_rows(arms)
        truths = captioner_truths(factory)
        _write_files(draft.folder, factory, arms, waiting, rows, truths)
        draft.summary = {
            "recipes": len({row.recipe for row in rows}),
            "verdicts": {name: verdict(group) for name, group in by_label(rows).items()},
        }

    return factory.store.make(plan, build)


def truth_table(truths: Sequence[CaptionerTruth]) -> Table:
    """Each captioner against the truth, in percent."""
    table = [["captioner", "shear", "named, whole", "named, sheared", "right, whole", "right, sheared"]]
    for each in truths:
        shares = (each.whole.named_share, each.sheared.named_share, each.whole.right_share, each.sheared.right_share)
        table.append([each.captioner, each.shear, *(percent(share) for share in shares)])
    return table


def cost_table(arms: Sequence[ArmResult], factory: Factory) -> Table:
    """What each recipe's training was and cost."""
    table = [["recipe", "captions an image", "steps", "samples seen", "training seconds"]]
    for arm in arms:
        checkpoint = factory.store.read(arm.metrics.manifest.inputs[0].address)
        training_set = checkpoint and factory.store.read(checkpoint.manifest.inputs[0].address)
        if checkpoint is None or training_set is None:
            continue
        per_image = training_set.manifest.summary["captions"] / max(training_set.manifest.summary["images"], 1)
        table.append([arm.recipe.name, f"{per_image:.2f}", *_cost(checkpoint)])
        tuned = factory.store.read(arm.metrics.manifest.inputs[1].address) if arm.recipe.finetune else None
        if tuned is not None:
            table.append([f"{arm.recipe.name}, {FINE_TUNED}", "", *_cost(tuned)])
    return table


def _cost(checkpoint: Artifact) -> list[str]:
    trained = checkpoint.manifest.summary
    return [str(trained["steps"]), str(trained["samples_seen"]), f"{trained['seconds']:.0f}"]


def _write_files(
    folder: Path,
    factory: Factory,
    arms: Sequence[ArmResult],
    waiting: Sequence[Recipe],
    rows: list[ResultRow],
    truths: list[CaptionerTruth],
) -> None:
    name = factory.config.name
    markdown: list[str] = [f"# Ablation report: {name}"]
    page: list[str] = [f"<h1>Ablation report: {html.escape(name)}</h1>"]
    for evaluation_set, group in by_label(rows).items():
        title = f"Retrieval on {evaluation_set} (percent; i2t: image to text, t2i: text to image)"
        markdown += [f"## {title}", markdown_table(recall_table(group)), f"**{verdict(group)}**"]
        chart = recall_bars(
            {row.recipe: {d.replace("_", " "): row.recall[f"{d}@1"] for d in DIRECTIONS} for row in group},
            group[0].mean_chance_at_1,
            f"Recall@1 on {evaluation_set}",
        )
        page += [f"<h2>{html.escape(title)}</h2>", _html_table(recall_table(group))]
        page += [f"<p><strong>{html.escape(verdict(group))}</strong></p>"]
        page += [f'<img alt="Recall@1 of each recipe on {html.escape(evaluation_set)}" src="{data_uri(chart)}">']
    for name, classified in by_label(classification_rows(arms)).items():
        title = f"Zero-shot classification on {name} (percent)"
        markdown += [f"## {title}", markdown_table(classification_table(classified))]
        page += [f"<h2>{html.escape(title)}</h2>", _html_table(classification_table(classified))]
    if truths:
        title = (
            "Captioners against the truth (percent of things present that are named; of things named that are there)"
        )
        markdown += [f"## {title}", markdown_table(truth_table(truths))]
        page += [f"<h2>{html.escape(title)}</h2>", _html_table(truth_table(truths))]
    costs = cost_table(arms, factory)
    markdown += ["## What training cost", markdown_table(costs)]
    page += ["<h2>What training cost</h2>", _html_table(costs)]
    if waiting:
        missing = "Not measured yet: " + ", ".join(recipe.name for recipe in waiting) + "."
        markdown.append(missing)
        page.append(f"<p>{html.escape(missing)}</p>")
    lineage = [["recipe", "seed", "metrics"]]
    lineage += [[arm.recipe.name, str(arm.recipe.seed), arm.metrics.manifest.address] for arm in arms]
    markdown += ["## Artifacts", markdown_table(lineage)]
    page += ["<h2>Artifacts</h2>", _html_table(lineage)]
    attributions = {reader.attribution for reader in (factory.config.pairs, *factory.config.evaluation_sets.values())}
    for attribution in sorted(each for each in attributions if each):
        markdown.append(attribution)
        page.append(f"<p>{html.escape(attribution)}</p>")
    (folder / "report.md").write_text("\n\n".join(markdown) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(_PAGE.format(title=html.escape(name), body="\n".join(page)), encoding="utf-8")
    results = {"factory": name, "rows": [row.to_dict() for row in rows], "captioners": [_truth(t) for t in truths]}
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _truth(each: CaptionerTruth) -> dict[str, object]:
    return {
        "captioner": each.captioner,
        "shear": each.shear,
        "texts": each.whole.n,
        "named_share": {"whole": each.whole.named_share, "sheared": each.sheared.named_share},
        "right_share": {"whole": each.whole.right_share, "sheared": each.sheared.right_share},
    }


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: left; }}
td {{ font-variant-numeric: tabular-nums; }} img {{ max-width: 100%; }}
</style></head><body>
{body}
</body></html>
"""
