"""The `sheared_captions` stage: a recipe's captions, shortened by its shear.

Inside, work is kept by captioner, shear and shard: two recipes with the same captioner and shear share the result, and
a new shard costs only itself.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caploom.common.hashing import content_version, fingerprint
from caploom.common.progress import Progress
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.shearing.rule import Context
from caploom.shearing.rules import RAW_WORDS, RULES
from caploom.shearing.settings import ShearStep
from caploom.shearing.table import shear_table
from caploom.stages.captioner_tokens import captioner_tokens, check_tokenizers
from caploom.stages.captions import read_captions
from caploom.stages.captions_cost import captions_of
from caploom.stages.checks import NEVER_EMPTY, ROWS_ACCOUNTED, CheckOutcome, accounted
from caploom.stages.graph import Graph, graph_of
from caploom.stages.raw_words import corpus_words, corpus_words_so_far, longest_raw_words, uncounted
from caploom.stages.stage import Alike, Checks, Configuration, Cost, Key, Making, Piece, Ref, Stage, by_rows
from caploom.stages.words import steps_in_words
from caploom.storage.manifest import Manifest
from caploom.storage.records import SHEARED as SHEARED_SCHEMA
from caploom.storage.store import Artifact, Draft
from caploom.storage.tables import count_rows, read_batches, read_table, write_table

KIND = "sheared_captions"
SHARD_KIND = "sheared"
CODE_VERSION = "2"
_TABLE = "sheared.parquet"


def shear_fingerprint(steps: Sequence[ShearStep]) -> str:
    """Hash of a shear's rules and parameters."""
    return fingerprint([step.model_dump(mode="json") for step in steps])


def shear_recipe(factory: Factory | Graph, recipe: Recipe, progress: Progress | None = None) -> Artifact:
    """Shear a recipe's captions, unless they are sheared: one table (schema SHEARED) a captioner and shard.

    Raises `MissingArtifactError` before they are all captioned.
    """
    graph = graph_of(factory, recipe)
    shear_captioners(graph, recipe.shear, recipe.captioners, progress)
    return graph.make(Ref(KIND, (recipe.name,)))


def shear_captioners(
    factory: Factory | Graph, shear: str, captioners: Sequence[str], progress: Progress | None = None
) -> list[Artifact]:
    """Shear some captioners' captions of every shard, unless they are sheared: one table (SHEARED) each."""
    graph = graph_of(factory)
    jobs = [(captioner, shear, shard) for captioner in captioners for shard in graph.shards]
    made = []
    for done, key in enumerate(jobs, start=1):
        made.append(graph.make(Ref(SHARD_KIND, key)))
        if progress is not None:
            progress(done, len(jobs))
    return made


def tables_of(factory: Factory | Graph, sheared: Artifact) -> list[Artifact]:
    """The artifacts, one a captioner and shard, that hold a recipe's sheared captions."""
    found = [graph_of(factory).view.read(record.address) for record in sheared.manifest.inputs]
    return [artifact for artifact in found if artifact is not None]


def captioner_lengths(tables: Sequence[Artifact], captioner: str) -> tuple[Counter[int], Counter[int]]:
    """How many of a captioner's captions have how many words, before and after; `tables` as of `tables_of`."""
    before, after = Counter[int](), Counter[int]()
    for table in _tables(tables, captioner, ["source_words", "words"]):
        before.update(table.column("source_words").to_pylist())
        after.update(table.column("words").to_pylist())
    return before, after


def sheared_texts(factory: Factory | Graph, captioner: str, steps: Sequence[ShearStep]) -> dict[str, str]:
    """By image, what a shear keeps of a captioner's captions so far; nothing is written."""
    graph = graph_of(factory)
    kept: dict[str, str] = {}
    corpus = corpus_words_so_far(graph, steps)
    for source in graph.existing(Ref("captions", (captioner, shard)) for shard in graph.shards):
        image_ids, table = _sheared(graph, source, steps, source.manifest.configuration["shard"], corpus)
        kept.update(zip(image_ids, table.column("caption").to_pylist(), strict=True))
    return kept


def _build_table(making: Making, draft: Draft) -> None:
    _, shear, shard = making.ref.key
    source, steps = making.inputs("captions")[0], making.config.shear_steps(shear)
    corpus = making.plan.configuration.get("corpus_words", {})
    image_ids, table = _sheared(making.graph, source, steps, shard, corpus)
    write_table(table, draft.folder / _TABLE)
    draft.rows = count_rows("captions", len(image_ids), len(table), [])
    kept = zip(image_ids, table.column("caption").to_pylist(), strict=True)
    draft.data_version = content_version(f"{image}\t{caption}" for image, caption in kept)


def _sheared(
    graph: Graph, source: Artifact, steps: Sequence[ShearStep], shard: str, corpus: dict[str, int]
) -> tuple[list[str], pa.Table]:
    """The images of a shard's captions, and what a shear keeps of those (schema SHEARED)."""
    captions = read_captions(source)
    table = shear_captions(graph, captions, source.manifest.configuration["captioner"], shard, steps, corpus)
    return captions.column("image_id").to_pylist(), table


def shear_captions(
    graph: Graph,
    captions: pa.Table,
    captioner: str,
    shard: str,
    steps: Sequence[ShearStep],
    corpus: Mapping[str, int],
) -> pa.Table:
    """What a shear keeps (schema SHEARED) of captions (schema CAPTIONS) of a shard by one captioner, row by row."""
    captions = captions.select(["image_id", "captioner", "text"])
    image_ids: list[str] = captions.column("image_id").to_pylist()
    raw_words = None
    if needs_raw_words(steps):
        raw_words = longest_raw_words(graph.require(Ref("raw_pairs", (shard,))), image_ids)
    tokens = captioner_tokens(graph.config, captioner, steps)
    return shear_table(captions, steps, Context(image_ids, captioner, raw_words, corpus, tokens))


def _build_recipe(making: Making, draft: Draft) -> None:
    parts = making.inputs()
    counts = [part.manifest.rows for part in parts if part.manifest.rows is not None]
    draft.rows = count_rows("captions", sum(c.rows_in for c in counts), sum(c.rows_out for c in counts), [])
    draft.data_version = content_version(part.data_version for part in parts)
    draft.summary = {"captioners": [_captioner_summary(parts, each) for each in making.recipe.captioners]}
    corpus = making.plan.configuration.get("corpus_words")
    if corpus:
        draft.summary["corpus_words"] = corpus


def needs_raw_words(steps: Sequence[ShearStep]) -> bool:
    """Whether a shear looks at the lengths of the raw captions of the same image."""
    return any(RAW_WORDS in RULES[step.rule].needs for step in steps)


def _tables(tables: Sequence[Artifact], captioner: str, columns: list[str]) -> Iterator[pa.Table]:
    for artifact in tables:
        if artifact.manifest.configuration["captioner"] == captioner:
            yield read_table(artifact.file(_TABLE), columns)


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


def check_sheared(graph: Graph, artifact: Artifact) -> list[CheckOutcome]:
    """Of a recipe: captions in = captions out, and none became empty."""
    rows = artifact.manifest.rows
    return _check(rows.rows_in if rows else 0, tables_of(graph, artifact))


def check_sheared_tables(parts: Sequence[Artifact]) -> list[CheckOutcome]:
    """The same of a captioner's tables, one a shard."""
    return _check(sum(part.manifest.rows.rows_in for part in parts if part.manifest.rows), parts)


def _check(rows_in: int, parts: Sequence[Artifact]) -> list[CheckOutcome]:
    captions = empty = 0
    for part in parts:
        for batch in read_batches(part.file(_TABLE), ["caption"]):
            captions += len(batch)
            blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(batch.column("caption"))), 0)
            empty += pc.sum(blank).as_py() or 0
    return [
        accounted(rows_in, captions, 0),
        CheckOutcome(NEVER_EMPTY, empty == 0, f"{empty} sheared captions are empty.", {"empty": empty}),
    ]


def _shears(graph: Graph) -> dict[str, str]:
    """By the fingerprint of a shear, the first name that a recipe has for it."""
    names: dict[str, str] = {}
    for recipe in graph.recipes.values():
        names.setdefault(shear_fingerprint(graph.config.shear_steps(recipe.shear)), recipe.shear)
    return names


def _table_keys(graph: Graph) -> list[Key]:
    """Every captioner's captions by every shear that some recipe asks for; shears of one content are one."""
    names = graph.fact(("shears",), lambda: _shears(graph))
    asked = dict.fromkeys(
        (captioner, names[shear_fingerprint(graph.config.shear_steps(recipe.shear))])
        for recipe in graph.recipes.values()
        for captioner in recipe.captioners
    )
    return [(captioner, shear, shard) for captioner, shear in asked for shard in graph.shards]


def _table_settings(graph: Graph, key: Key) -> Configuration:
    return {"captioner": key[0], "steps": graph.fact(("steps", key[1]), lambda: _dumped(graph, key[1]))}


def _dumped(graph: Graph, shear: str) -> list[dict[str, Any]]:
    return [step.model_dump(mode="json") for step in graph.config.shear_steps(shear)]


def _corpus(graph: Graph, shear: str) -> Configuration:
    corpus = corpus_words(graph, graph.config.shear_steps(shear))
    return {"corpus_words": corpus} if corpus else {}


def _table_inputs(graph: Graph, key: Key) -> list[Ref]:
    captioner, shear, shard = key
    raw = [Ref("raw_pairs", (shard,))] if needs_raw_words(graph.config.shear_steps(shear)) else []
    return [Ref("captions", (captioner, shard)), *raw]


def _fingerprint(graph: Graph, shear: str) -> str:
    return graph.fact(("shear", shear), lambda: shear_fingerprint(graph.config.shear_steps(shear)))


def _table_key(graph: Graph, manifest: Manifest) -> Key:
    captioner, fingerprint, shard = manifest.address.split("/")[1:-1]
    names = (name for name in ("none", *graph.config.shears) if _fingerprint(graph, name) == fingerprint)
    return captioner, next(names, fingerprint), shard


def _recipe_settings(graph: Graph, key: Key) -> Configuration:
    recipe = graph.recipe(key[0])
    return {"captioners": list(recipe.captioners), "shear": recipe.shear}


def _recipe_inputs(graph: Graph, key: Key) -> list[Ref]:
    recipe = graph.recipe(key[0])
    return [
        Ref(SHARD_KIND, (captioner, recipe.shear, shard)) for captioner in recipe.captioners for shard in graph.shards
    ]


def _recipe_in_words(configuration: Mapping[str, Any]) -> str:
    shear = configuration["shear"]
    captioners = ", ".join(configuration["captioners"]) or "no captioners"
    return f"{'not sheared' if shear == 'none' else f'shear {shear}'}; {captioners}"


def _units(graph: Graph, keys: Sequence[Key]) -> tuple[int, bool]:
    count = sum(captions_of(graph, captioner, shard) for captioner, _, shard in keys)
    return count, all(graph.find(Ref("captions", (captioner, shard))) is not None for captioner, _, shard in keys)


def _used_by(graph: Graph, keys: Sequence[Key]) -> int:
    captioner, fingerprint = keys[0][0], _fingerprint(graph, keys[0][1])
    recipes = (recipe for recipe in graph.recipes.values() if captioner in recipe.captioners)
    return len({recipe.base for recipe in recipes if _fingerprint(graph, recipe.shear) == fingerprint})


def _alike(graph: Graph, key: Key) -> list[Alike]:
    fingerprint = _fingerprint(graph, key[1])
    same = Alike("captions by this shear", (), lambda graph, each: each.address.split("/")[2] == fingerprint)
    return [same, Alike("captions by other shears")]


SHEARED = Stage(
    kind=SHARD_KIND,
    code_version=CODE_VERSION,
    axes=("captioner", "shear", "shard"),
    keys=_table_keys,
    settings=_table_settings,
    facts=lambda graph, key: _corpus(graph, key[1]),
    build=_build_table,
    upstream=("captions", "raw_pairs", "raw_words"),
    inputs=_table_inputs,
    asks=lambda graph, key: uncounted(graph, graph.config.shear_steps(key[1])),
    name=lambda graph, key: (key[0], _fingerprint(graph, key[1]), key[2]),
    name_parts=("captioner", "#shear", "shard"),
    tell_key=_table_key,
    on_demand=True,
    prepare=lambda graph, key: check_tokenizers(graph.config, key[0], graph.config.shear_steps(key[1])),
    hidden=True,
    shown=lambda configuration: {"rules": configuration["steps"]},
    words=lambda configuration: steps_in_words(configuration["steps"]),
    cost=Cost(
        unit="captions",
        line=lambda graph, key: f"{key[0]}, {key[1]}",
        units=_units,
        shared_by=_used_by,
        measured=by_rows,
        alike=_alike,
        verb="shear",
    ),
    tables={_TABLE: SHEARED_SCHEMA},
    texts="select image_id, '' as source, caption as said from read_parquet(?)",
    fact_keys=frozenset({"corpus_words"}),
    piece=Piece("shear", lambda graph, key: _table_settings(graph, key)["steps"]),
)

SHEARED_CAPTIONS = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("recipe",),
    keys=lambda graph: [(name,) for name in graph.recipes],
    settings=_recipe_settings,
    facts=lambda graph, key: _corpus(graph, graph.recipe(key[0]).shear),
    build=_build_recipe,
    upstream=("sheared", "raw_pairs", "raw_words"),
    inputs=_recipe_inputs,
    asks=lambda graph, key: uncounted(graph, graph.config.shear_steps(graph.recipe(key[0]).shear)),
    name=lambda graph, key: (graph.recipe(key[0]).base,),
    passed_on="shear {shear}: {key}",
    texts="select image_id, captioner as source, caption as said from read_parquet(?)",
    words=_recipe_in_words,
    unit="tables",
    cost=None,  # it counts what its tables have counted
    fact_keys=frozenset({"corpus_words"}),
    checks=Checks((ROWS_ACCOUNTED, NEVER_EMPTY), check_sheared),
    piece=Piece("captions"),
)
