"""The `sheared_captions` stage: a recipe's captions, shortened by its shear.

Inside, work is kept by captioner, shear and shard: two recipes with the same captioner and shear share the result, and
a new shard costs only itself.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caploom.common.hashing import content_version, fingerprint
from caploom.common.progress import Progress
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.shearing.apply import shear_column, shear_span
from caploom.shearing.rule import Context
from caploom.shearing.rules import RAW_WORDS, RULES
from caploom.shearing.settings import ShearStep
from caploom.stages.captioner_tokens import captioner_tokens, check_tokenizers
from caploom.stages.captions import captions_plan, read_captions
from caploom.stages.raw_pairs import raw_pairs_plan
from caploom.stages.raw_words import corpus_words, longest_raw_words
from caploom.stages.shards import shard_names
from caploom.storage.records import SHEARED
from caploom.storage.store import Artifact, Draft, Plan
from caploom.storage.tables import count_rows, read_table, write_table

__all__ = ["shear_span"]

KIND = "sheared_captions"
SHARD_KIND = "sheared"
CODE_VERSION = "2"

_BLOCK_ROWS = 8192
_BLOCK_BYTES = 32 * 2**20  # of text


def shear_fingerprint(steps: Sequence[ShearStep]) -> str:
    """Hash of a shear's rules and parameters."""
    return fingerprint([step.model_dump(mode="json") for step in steps])


def sheared_shard_plan(
    factory: Factory, shear: str, captioner: str, shard: str, corpus: dict[str, int] | None = None
) -> Plan:
    """The plan of a captioner's sheared captions of a shard; raises `MissingArtifactError` before there are any.

    `corpus` is `corpus_words` of the shear, looked up unless given.
    """
    steps = factory.config.shear_steps(shear)
    check_tokenizers(factory, captioner, steps)
    corpus = corpus_words(factory, steps) if corpus is None else corpus
    inputs = [
        factory.store.require(
            captions_plan(factory, captioner, shard), make_with=f"materialize captions/{captioner} [{shard}]"
        )
    ]
    if needs_raw_words(steps):
        pairs = raw_pairs_plan(factory, shard)
        inputs.append(factory.store.require(pairs, make_with=f"materialize raw_pairs [{shard}]"))
    return sheared_shard_stage(steps, captioner, shard, corpus).of(artifact.as_input() for artifact in inputs)


def sheared_shard_stage(steps: Sequence[ShearStep], captioner: str, shard: str, corpus: dict[str, int]) -> Plan:
    """The same without the inputs: the shard's captions, and its raw pairs where `needs_raw_words`."""
    return Plan(
        kind=SHARD_KIND,
        name=(captioner, shear_fingerprint(steps), shard),
        code_version=CODE_VERSION,
        configuration={
            "captioner": captioner,
            "steps": [step.model_dump(mode="json") for step in steps],
            **({"corpus_words": corpus} if corpus else {}),
        },
    )


def sheared_captions_plan(factory: Factory, recipe: Recipe) -> Plan:
    """The plan of a recipe's sheared captions over all shards."""
    steps = factory.config.shear_steps(recipe.shear)
    corpus, shards = corpus_words(factory, steps), shard_names(factory)
    return sheared_captions_stage(recipe, corpus).of(
        factory.store.require(
            sheared_shard_plan(factory, recipe.shear, captioner, shard, corpus),
            make_with=f"materialize sheared_captions [{recipe.name}]",
        ).as_input()
        for captioner in recipe.captioners
        for shard in shards
    )


def sheared_captions_stage(recipe: Recipe, corpus: dict[str, int]) -> Plan:
    """The same without the inputs: one table a captioner and shard, the shards inside."""
    return Plan(
        kind=KIND,
        name=(recipe.base,),
        code_version=CODE_VERSION,
        configuration={
            "captioners": list(recipe.captioners),
            "shear": recipe.shear,
            **({"corpus_words": corpus} if corpus else {}),
        },
    )


def shear_recipe(factory: Factory, recipe: Recipe, progress: Progress | None = None) -> Artifact:
    """Shear a recipe's captions, unless they are sheared: one table (schema SHEARED) a captioner and shard."""
    shear_captioners(factory, recipe.shear, recipe.captioners, progress)
    plan = sheared_captions_plan(factory, recipe)
    corpus = plan.configuration.get("corpus_words")

    def build(draft: Draft) -> None:
        parts = _artifacts(factory, plan.inputs)
        counts = [part.manifest.rows for part in parts if part.manifest.rows is not None]
        draft.rows = count_rows("captions", sum(c.rows_in for c in counts), sum(c.rows_out for c in counts), [])
        draft.data_version = content_version(record.data_version for record in plan.inputs)
        draft.summary = {"captioners": [_captioner_summary(parts, each) for each in recipe.captioners]}
        if corpus:
            draft.summary["corpus_words"] = corpus

    return factory.store.make(plan, build)


def shear_captioners(
    factory: Factory, shear: str, captioners: Sequence[str], progress: Progress | None = None
) -> list[Artifact]:
    """Shear some captioners' captions of every shard, unless they are sheared: one table (SHEARED) each."""
    corpus, shards = corpus_words(factory, factory.config.shear_steps(shear)), shard_names(factory)
    jobs = [(captioner, shard) for captioner in captioners for shard in shards]
    made = []
    for done, (captioner, shard) in enumerate(jobs, start=1):
        made.append(shear_shard(factory, shear, captioner, shard, corpus))
        if progress is not None:
            progress(done, len(jobs))
    return made


def sheared_tables(factory: Factory, recipe: Recipe) -> list[Artifact]:
    """The artifacts, one a captioner and shard, that hold a recipe's sheared captions."""
    return _artifacts(factory, sheared_captions_plan(factory, recipe).inputs)


def tables_of(factory: Factory, sheared: Artifact) -> list[Artifact]:
    """The same of a recipe's artifact that is at hand."""
    return _artifacts(factory, sheared.manifest.inputs)


def captioner_lengths(tables: Sequence[Artifact], captioner: str) -> tuple[Counter[int], Counter[int]]:
    """How many of a captioner's captions have how many words, before and after; `tables` as of `tables_of`."""
    before, after = Counter[int](), Counter[int]()
    for table in _tables(tables, captioner, ["source_words", "words"]):
        before.update(table.column("source_words").to_pylist())
        after.update(table.column("words").to_pylist())
    return before, after


def shear_shard(factory: Factory, shear: str, captioner: str, shard: str, corpus: dict[str, int]) -> Artifact:
    """Shear one captioner's captions of one shard, unless they are sheared; `corpus` is `corpus_words` of the shear."""
    plan = sheared_shard_plan(factory, shear, captioner, shard, corpus)
    steps = factory.config.shear_steps(shear)

    def build(draft: Draft) -> None:
        source = factory.store.require(captions_plan(factory, captioner, shard), make_with="caption")
        captions = read_captions(source).select(["image_id", "captioner", "text"])
        image_ids = captions.column("image_id").to_pylist()
        table = shear_table(captions, steps, _context(factory, captioner, shard, steps, image_ids, corpus))
        write_table(table, draft.folder / "sheared.parquet")
        draft.rows = count_rows("captions", len(captions), len(table), [])
        kept = zip(image_ids, table.column("caption").to_pylist(), strict=True)
        draft.data_version = content_version(f"{image}\t{caption}" for image, caption in kept)

    return factory.store.make(plan, build)


def sheared_texts(factory: Factory, captioner: str, steps: Sequence[ShearStep]) -> dict[str, str]:
    """By image, what a shear keeps of a captioner's captions so far; nothing is written."""
    kept: dict[str, str] = {}
    corpus = corpus_words(factory, steps)
    for shard in shard_names(factory):
        source = factory.store.find(captions_plan(factory, captioner, shard))
        if source is not None:
            captions = read_captions(source).select(["image_id", "captioner", "text"])
            image_ids = captions.column("image_id").to_pylist()
            table = shear_table(captions, steps, _context(factory, captioner, shard, steps, image_ids, corpus))
            kept.update(zip(image_ids, table.column("caption").to_pylist(), strict=True))
    return kept


def _context(
    factory: Factory,
    captioner: str,
    shard: str,
    steps: Sequence[ShearStep],
    image_ids: Sequence[str],
    corpus: dict[str, int],
) -> Context:
    raw_words = None
    if needs_raw_words(steps):
        pairs = factory.store.require(raw_pairs_plan(factory, shard), make_with=f"materialize raw_pairs [{shard}]")
        raw_words = longest_raw_words(pairs, image_ids)
    return Context(image_ids, captioner, raw_words, corpus, captioner_tokens(factory, captioner, steps))


def shear_table(captions: pa.Table, steps: Sequence[ShearStep], context: Context) -> pa.Table:
    """Captions (columns image_id, captioner and text) as SHEARED, worked through in blocks of bounded size."""
    parts = [SHEARED.empty_table()]
    for start, end in _blocks(captions.column("text")):
        block = captions.slice(start, end - start).combine_chunks()
        texts = block.column("text").cast(pa.large_string()).combine_chunks()
        sheared = shear_column(texts, steps, context.slice(start, end))
        columns: dict[str, Any] = {
            "image_id": block.column("image_id"),
            "captioner": block.column("captioner"),
            "start": sheared.start,
            "end": sheared.end,
            "caption": sheared.texts,
            "source_words": sheared.source_words,
            "words": sheared.words,
            "cut": sheared.cut,
            "at_cap": sheared.at_cap,
        }
        parts.append(pa.table(columns).cast(SHEARED))
    return pa.concat_tables(parts)


def _blocks(texts: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """Ranges of rows, each of a bounded number of rows and of bytes (but one row may be longer)."""
    reached = np.cumsum(np.asarray(pc.fill_null(pc.binary_length(texts), 0), np.int64))
    start, before = 0, 0
    while start < len(texts):
        fitting = int(np.searchsorted(reached, before + _BLOCK_BYTES, side="right"))
        end = min(max(fitting, start + 1), start + _BLOCK_ROWS, len(texts))
        yield start, end
        start, before = end, int(reached[end - 1])


def needs_raw_words(steps: Sequence[ShearStep]) -> bool:
    """Whether a shear looks at the lengths of the raw captions of the same image."""
    return any(RAW_WORDS in RULES[step.rule].needs for step in steps)


def _artifacts(factory: Factory, inputs: Sequence[Any]) -> list[Artifact]:
    found = [factory.store.read(record.address) for record in inputs]
    return [artifact for artifact in found if artifact is not None]


def _tables(tables: Sequence[Artifact], captioner: str, columns: list[str]) -> Iterator[pa.Table]:
    for artifact in tables:
        if artifact.manifest.configuration["captioner"] == captioner:
            yield read_table(artifact.file("sheared.parquet"), columns)


def _captioner_summary(tables: Sequence[Artifact], captioner: str) -> dict[str, object]:
    sums = dict.fromkeys(("captions", "source_words", "words", "cut", "at_cap"), 0)
    for table in _tables(tables, captioner, ["source_words", "words", "cut", "at_cap"]):
        sums["captions"] += len(table)
        for name in table.column_names:
            sums[name] += pc.sum(table.column(name)).as_py() or 0
    captions = sums["captions"]
    return {
        "captioner": captioner,
        "captions": captions,
        "mean_words_before": round(sums["source_words"] / captions, 2) if captions else None,
        "mean_words_after": round(sums["words"] / captions, 2) if captions else None,
        "share_cut": round(sums["cut"] / captions, 4) if captions else None,
        "share_at_cap": round(sums["at_cap"] / captions, 4) if captions else None,
    }
