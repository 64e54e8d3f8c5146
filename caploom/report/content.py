"""Gathers the whole report: measurements, captioners, what was trained, and the artifacts behind it."""

from collections.abc import Mapping, Sequence
from typing import Any

from caploom.config.factory import Factory
from caploom.questions.results.arms import Arm, arms_of
from caploom.questions.results.data_versions import RecipeVersions
from caploom.questions.results.latest_results import LatestResults
from caploom.questions.results.results import classification_rows, result_rows, verdict
from caploom.questions.results.tables import by_label, classification_table
from caploom.report.captioners import captioner_sections
from caploom.report.duplicates import duplicates_section
from caploom.report.measurement import Measurement
from caploom.report.sections import Cell, Content, Row, Section
from caploom.report.versions import versions_section
from caploom.storage.store import Artifact


def report_content(factory: Factory, latest: LatestResults, versions: Mapping[str, RecipeVersions]) -> Content:
    """The report's content for the measured recipes; `versions` are those with several versions."""
    results = latest.arms
    arms = arms_of(factory, results)
    rows = by_label(result_rows(results))
    by_base: dict[str, list[Arm]] = {}
    for arm in arms:
        by_base.setdefault(arm.recipe.base, []).append(arm)
    sections: list[Section] = []
    figures: dict[str, Any] = {}
    for number, (label, group) in enumerate(rows.items()):
        sections += Measurement(factory, label, f"m{number}", group, by_base).sections(figures)
        of_the_data = versions_section(versions, label, f"m{number}-versions")
        sections += [of_the_data] if of_the_data is not None else []
    for label, classified in by_label(classification_rows(results)).items():
        table: list[Row] = [list(row) for row in classification_table(classified)]
        sections.append(
            Section(f"classification-{len(sections)}", f"Zero-shot classification on {label} (percent)", table=table)
        )
    sections += captioner_sections(factory, by_base)
    sections.append(_training_section(by_base))
    duplicates = duplicates_section(by_base)
    sections += [duplicates] if duplicates is not None else []
    if sentences := latest.sentences():
        sections.append(Section("waiting", "Not measured yet", sentences=sentences))
    pairs = [factory.config.pairs] if factory.config.pairs is not None else []
    readers = (*pairs, *factory.config.evaluation_sets.values())
    return Content(
        factory=factory.config.name,
        sections=sections,
        artifacts=_artifacts(arms, sections),
        attributions=sorted({reader.attribution for reader in readers if reader.attribution}),
        results={
            "factory": factory.config.name,
            "rows": [row.to_dict() for group in rows.values() for row in group],
            **figures,
            **({"on_earlier_data": dict(latest.on_earlier_data)} if latest.on_earlier_data else {}),
            **({"versions": [version.to_dict() for version in versions.values()]} if versions else {}),
        },
        verdicts={label: verdict(group) for label, group in rows.items()},
    )


def _artifacts(arms: Sequence[Arm], sections: Sequence[Section]) -> list[Artifact]:
    """The arms' own artifacts, and all others that numbers refer to."""
    found = [each for arm in arms for each in arm.chain]
    cells = [cell for section in sections for row in section.table or [] for cell in row if isinstance(cell, Cell)]
    found += [cell.artifact for cell in cells if cell.artifact is not None]
    return list({each.manifest.address: each for each in found}.values())


def _training_section(by_base: Mapping[str, list[Arm]]) -> Section:
    header: Row = ["recipe", "captions per image", "words a caption", "steps", "samples seen", "training seconds"]
    table: list[Row] = [header]
    for arms in by_base.values():
        for arm in arms:
            seen = sum(checkpoint.manifest.summary["samples_seen"] for checkpoint in arm.checkpoints)
            steps = sum(checkpoint.manifest.summary["steps"] for checkpoint in arm.checkpoints)
            table.append(
                [
                    Cell(arm.recipe.name, arm.checkpoints[0]),
                    Cell(f"{arm.captions_per_image:.2f}", arm.training_set),
                    Cell(f"{arm.mean_words:.1f}", arm.training_set),
                    *(
                        Cell(text, arm.checkpoints[-1])
                        for text in (f"{steps}", f"{seen}", f"{arm.training_seconds:.0f}")
                    ),
                ]
            )
    return Section("training", "What was trained", table=table)
