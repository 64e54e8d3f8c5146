"""The section on captioners: their captions' statistics, failures, and truth."""

from collections.abc import Iterator, Mapping
from itertools import accumulate

from caploom.common.text import decimal
from caploom.config.factory import Factory
from caploom.questions.caption_statistics import statistics_of_artifacts
from caploom.questions.captioner_truth import captioner_truths
from caploom.questions.results.arms import Arm
from caploom.questions.results.results import percent
from caploom.report.sections import Cell, Row, Section
from caploom.storage.store import Artifact

_MOST_IMAGES = 20_000  # images in the sample for captioners' figures: all shards would take hours


def captioner_sections(factory: Factory, by_base: Mapping[str, list[Arm]]) -> Iterator[Section]:
    """The sections on the captioners of measured recipes."""
    having = {name for arms in by_base.values() for name in arms[0].recipe.captioners}
    used = [name for name in factory.config.captioners if name in having]
    found = {each.manifest.address: each for arms in by_base.values() for arm in arms for each in arm.captions}
    captions: dict[str, list[Artifact]] = {}
    for artifact in found.values():
        captions.setdefault(artifact.manifest.configuration["captioner"], []).append(artifact)
    used = [name for name in used if name in captions]
    if not used:
        return
    images = {
        _shard(part): part.manifest.rows.rows_in for name in used for part in captions[name] if part.manifest.rows
    }
    sample = _sample(images)
    header = ["captioner", "captions", "failed", "words: mean", "median", "95 %", "refusals, %", "boilerplate, %"]
    table: list[Row] = [[*header, "shared with raw, %", "images/s"]]
    for name in used:
        of = statistics_of_artifacts(factory.store, [part for part in captions[name] if _shard(part) in sample])
        manifests = [part.manifest for part in captions[name]]
        failed = sum(manifest.rows.rows_failed for manifest in manifests if manifest.rows is not None)
        made = sum(manifest.summary["generated"] for manifest in manifests)
        spent = sum(manifest.summary["generation_seconds"] for manifest in manifests)
        numbers = [
            f"{sum(manifest.summary['captions'] for manifest in manifests):,}",
            f"{failed:,}",
            *map(decimal, (of.mean_words, of.median_words, of.p95_words)),
            *map(percent, (of.share_refusal, of.share_boilerplate, of.words_shared_with_raw)),
            f"{made / spent:,.1f}" if spent else "-",
        ]
        table.append([Cell(each, captions[name][0]) for each in (name, *numbers)])
    notes = [f"Lengths and shares are of {len(sample)} of {len(images)} shards."] if len(sample) < len(images) else []
    yield Section("captioners", "What the captioners are like", sentences=notes, table=table)
    truths = captioner_truths(factory)
    if truths:
        heading = ["captioner", "shear", "named, whole", "named, sheared", "right, whole", "right, sheared"]
        rows: list[Row] = [list(heading)]
        for truth in (one for one in truths if one.captioner in captions):
            named = truth.whole.named_share, truth.sheared.named_share
            right = truth.whole.right_share, truth.sheared.right_share
            cells = [truth.captioner, truth.shear, *map(percent, (*named, *right))]
            rows.append([Cell(text, captions[truth.captioner][0]) for text in cells])
        notes = ["Percent of the things present that are named, and of the things named that are there."]
        yield Section("truth", "Captioners against the truth", sentences=notes, table=rows)


def _shard(captions: Artifact) -> str:
    return str(captions.manifest.configuration["shard"])


def _sample(images: Mapping[str, int]) -> set[str]:
    """The first shards, with their numbers of images, that have enough images together."""
    before = accumulate(images.values(), initial=0)
    return {shard for shard, count in zip(images, before, strict=False) if count < _MOST_IMAGES}
