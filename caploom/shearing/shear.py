"""The `sheared_captions` stage: a recipe's captions, shortened by its shear.

Inside, work is kept by captioner, shear and shard: two recipes with the same captioner and shear share the result, and
a new shard costs only itself.
"""

import statistics
from collections.abc import Sequence

import pyarrow as pa

from caploom.captioning.caption_shard import captions_plan, read_captions
from caploom.config import Recipe
from caploom.factory import Factory
from caploom.lineage.fingerprints import content_version, fingerprint
from caploom.progress import Progress
from caploom.readers.shards import shard_names
from caploom.records import SHEARED
from caploom.shearing.rules import RULES, Span
from caploom.shearing.settings import ShearStep
from caploom.store import Artifact, Draft, Plan
from caploom.tables import count_rows, read_table, table_of, write_table

KIND = "sheared_captions"
SHARD_KIND = "sheared"
CODE_VERSION = "1"


def shear_span(text: str, steps: Sequence[ShearStep]) -> Span:
    """The span `(start, end)`, in characters, that a shear's steps keep, each working on what the last left."""
    start, end = 0, len(text)
    for step in steps:
        inner = RULES[step.rule].function(text[start:end], **step.parameters)
        start, end = start + inner[0], start + inner[1]
    return start, end


def shear_fingerprint(steps: Sequence[ShearStep]) -> str:
    """Hash of a shear's rules and parameters."""
    return fingerprint([step.model_dump(mode="json") for step in steps])


def sheared_shard_plan(factory: Factory, recipe: Recipe, captioner: str, shard: str) -> Plan:
    """The plan of a captioner's sheared captions of a shard; raises `MissingArtifactError` before there are any."""
    steps = factory.config.shear_steps(recipe.shear)
    captions = factory.store.require(
        captions_plan(factory, captioner, shard), make_with=f"materialize captions/{captioner} [{shard}]"
    )
    return Plan(
        kind=SHARD_KIND,
        name=(captioner, shear_fingerprint(steps), shard),
        code_version=CODE_VERSION,
        configuration={"captioner": captioner, "steps": [step.model_dump(mode="json") for step in steps]},
        inputs=(captions.as_input(),),
    )


def sheared_captions_plan(factory: Factory, recipe: Recipe) -> Plan:
    """The plan of a recipe's sheared captions over all shards."""
    return Plan(
        kind=KIND,
        name=(recipe.base,),
        code_version=CODE_VERSION,
        configuration={"captioners": list(recipe.captioners), "shear": recipe.shear},
        inputs=tuple(
            factory.store.require(
                sheared_shard_plan(factory, recipe, captioner, shard),
                make_with=f"materialize sheared_captions [{recipe.name}]",
            ).as_input()
            for captioner in recipe.captioners
            for shard in shard_names(factory)
        ),
    )


def shear_recipe(factory: Factory, recipe: Recipe, progress: Progress | None = None) -> Artifact:
    """Shear a recipe's captions, unless they are sheared: one table (schema SHEARED) a captioner and shard."""
    jobs = [(captioner, shard) for captioner in recipe.captioners for shard in shard_names(factory)]
    for done, (captioner, shard) in enumerate(jobs, start=1):
        _shear_shard(factory, recipe, captioner, shard)
        if progress is not None:
            progress(done, len(jobs))
    plan = sheared_captions_plan(factory, recipe)

    def build(draft: Draft) -> None:
        parts = [factory.store.read(record.address) for record in plan.inputs]
        counts = [part.manifest.rows for part in parts if part is not None and part.manifest.rows is not None]
        draft.rows = count_rows("captions", sum(c.rows_in for c in counts), sum(c.rows_out for c in counts), [])
        draft.data_version = content_version(record.data_version for record in plan.inputs)
        draft.summary = {"captioners": [_captioner_summary(factory, recipe, each) for each in recipe.captioners]}

    return factory.store.make(plan, build)


def sheared_tables(factory: Factory, recipe: Recipe) -> list[Artifact]:
    """The artifacts, one a captioner and shard, that hold a recipe's sheared captions."""
    plan = sheared_captions_plan(factory, recipe)
    found = [factory.store.read(record.address) for record in plan.inputs]
    return [artifact for artifact in found if artifact is not None]


def captioner_lengths(factory: Factory, recipe: Recipe, captioner: str) -> tuple[list[int], list[int]]:
    """Words of a captioner's captions before and after the shear, over all shards."""
    before: list[int] = []
    after: list[int] = []
    for artifact in sheared_tables(factory, recipe):
        if artifact.manifest.configuration["captioner"] == captioner:
            table = read_table(artifact.file("sheared.parquet"), ["source_words", "words"])
            before += table.column("source_words").to_pylist()
            after += table.column("words").to_pylist()
    return before, after


def _shear_shard(factory: Factory, recipe: Recipe, captioner: str, shard: str) -> None:
    plan = sheared_shard_plan(factory, recipe, captioner, shard)
    steps = factory.config.shear_steps(recipe.shear)

    def build(draft: Draft) -> None:
        captions = read_captions(factory.store.require(captions_plan(factory, captioner, shard), make_with="caption"))
        table = _shear_table(captions, steps)
        write_table(table, draft.folder / "sheared.parquet")
        draft.rows = count_rows("captions", len(captions), len(table), [])
        kept = zip(table.column("image_id").to_pylist(), table.column("caption").to_pylist(), strict=True)
        draft.data_version = content_version(f"{image}\t{caption}" for image, caption in kept)

    factory.store.make(plan, build)


def _shear_table(captions: pa.Table, steps: Sequence[ShearStep]) -> pa.Table:
    rows = []
    for row in captions.select(["image_id", "captioner", "text"]).to_pylist():
        text = row["text"]
        start, end = shear_span(text, steps)
        rows.append(
            {
                "image_id": row["image_id"],
                "captioner": row["captioner"],
                "start": start,
                "end": end,
                "caption": text[start:end],
                "source_words": len(text.split()),
                "words": len(text[start:end].split()),
            }
        )
    return table_of(rows, SHEARED)


def _captioner_summary(factory: Factory, recipe: Recipe, captioner: str) -> dict[str, object]:
    before, after = captioner_lengths(factory, recipe, captioner)
    cut = sum(1 for b, a in zip(before, after, strict=True) if a < b)
    return {
        "captioner": captioner,
        "captions": len(before),
        "mean_words_before": round(statistics.fmean(before), 2) if before else None,
        "mean_words_after": round(statistics.fmean(after), 2) if after else None,
        "share_cut": round(cut / len(before), 4) if before else None,
    }
