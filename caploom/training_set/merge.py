"""The `training_set` stage: raw and sheared captions joined by the image's identity, in a seeded order.

Written twice: as Parquet shards that training reads, and (unless switched off) as the seed's JSON for people and other
tools.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from caploom.config import Recipe
from caploom.errors import TrainingError
from caploom.factory import Factory
from caploom.names import RAW_SOURCE
from caploom.progress import Progress
from caploom.readers.ingest import ingested_shards, raw_pairs_plan
from caploom.readers.shards import shard_names
from caploom.records import TRAINING_ROWS
from caploom.shearing.shear import sheared_captions_plan, sheared_tables
from caploom.store import Artifact, Draft, Plan, RowCount
from caploom.tables import table_of, write_table
from caploom.training_set.mixes import MIXES
from caploom.training_set.settings import MixSettings

KIND = "training_set"
CODE_VERSION = "1"
ROWS_A_FILE = 50_000
_ORDER_SEED = 0

# Every caption once, with how often it came: an image in two shards brings its captions twice.
_CAPTIONS_SQL = """
create temp table captions as
with said as (
    select image_id, '{raw}' as source, 0 as place, raw_caption as caption from read_parquet($pairs)
    union all
    select image_id, captioner as source, 1 as place, caption from {sheared}
)
select image_id, source, place, caption, count(*) as times from said group by all
"""

_ROWS_SQL = """
with images as (select image_id, min_by(image, path) as image, min(path) as path from read_parquet($pairs) group by all)
select image_id, image, path,
       list(caption order by place, source, caption) as captions,
       list(source order by place, source, caption) as sources
from captions join images using (image_id)
group by image_id, image, path
order by md5($seed || image_id)
"""


def training_set_plan(factory: Factory, recipe: Recipe) -> Plan:
    """The plan of a recipe's training set; raises `MissingArtifactError` when a shard or a captioner is not ready."""
    sheared = factory.store.require(
        sheared_captions_plan(factory, recipe), make_with=f"materialize sheared_captions [{recipe.name}]"
    )
    pairs = [
        factory.store.require(raw_pairs_plan(factory, shard), make_with=f"materialize raw_pairs [{shard}]")
        for shard in shard_names(factory)
    ]
    return Plan(
        kind=KIND,
        name=(recipe.base,),
        code_version=CODE_VERSION,
        configuration={
            "captioners": list(recipe.captioners),
            "mix": recipe.mix.model_dump(mode="json"),
            "json": factory.config.training_json,
        },
        inputs=(sheared.as_input(), *(artifact.as_input() for artifact in pairs)),
    )


def merge_training_set(factory: Factory, recipe: Recipe, progress: Progress | None = None) -> Artifact:
    """Make a recipe's training set, unless it is made: `rows-*.parquet` (schema TRAINING_ROWS) and `training.json`."""

    def build(draft: Draft) -> None:
        counts, sources = _write(factory, recipe, draft.folder, progress)
        draft.rows = counts
        draft.seeds = {"order": _ORDER_SEED}
        draft.summary = sources

    return factory.store.make(training_set_plan(factory, recipe), build)


def training_files(training_set: Artifact) -> list[Path]:
    """The Parquet files of a training set, in their order."""
    names = sorted(name for name in training_set.manifest.files if name.startswith("rows-"))
    return [training_set.file(name) for name in names]


def _write(
    factory: Factory, recipe: Recipe, folder: Path, progress: Progress | None
) -> tuple[RowCount, dict[str, Any]]:
    pairs = [str(artifact.file("pairs.parquet")) for artifact in ingested_shards(factory)]
    if not pairs:
        raise TrainingError(f"The recipe {recipe.name} has no raw pairs: no shard has been ingested.")
    sheared = [str(artifact.file("sheared.parquet")) for artifact in sheared_tables(factory, recipe)]
    with duckdb.connect() as connection:
        # Out-of-core instead of out of memory, beside the artifact and gone with its hidden folder.
        connection.execute("set temp_directory = ?", [str(folder / "spill")])
        connection.register("no_captions", pa.table({"image_id": [], "captioner": [], "caption": []}, _NO_CAPTIONS))
        source = "read_parquet($sheared)" if sheared else "no_captions"
        files: dict[str, Any] = {"pairs": pairs} | ({"sheared": sheared} if sheared else {})
        connection.execute(_CAPTIONS_SQL.format(raw=RAW_SOURCE, sheared=source), files)
        summary = _summarize(connection, pairs)
        out = 0
        with _json_writer(folder / "training.json", enabled=factory.config.training_json) as write_json:
            reader = connection.sql(_ROWS_SQL, params={"pairs": pairs, "seed": str(_ORDER_SEED)}).to_arrow_reader(
                ROWS_A_FILE
            )
            for number, rows in enumerate(_row_blocks(reader, recipe.mix)):
                write_table(table_of(rows, TRAINING_ROWS), folder / f"rows-{number:05d}.parquet")
                write_json(rows)
                out += sum(len(row["captions"]) for row in rows)
                if progress is not None:
                    progress(out, summary["captions"])
    shutil.rmtree(folder / "spill", ignore_errors=True)
    repeated = summary["repeated_captions"]
    counts = RowCount(
        unit="captions",
        rows_in=summary["captions"] + repeated + summary["orphans"],
        rows_out=out,
        rows_failed=repeated + summary["orphans"],
        reasons={
            reason: number
            for reason, number in (("repeated_caption", repeated), ("orphan_caption", summary["orphans"]))
            if number
        },
    )
    return counts, summary


_NO_CAPTIONS = pa.schema([("image_id", pa.string()), ("captioner", pa.string()), ("caption", pa.string())])


def _summarize(connection: duckdb.DuckDBPyConnection, pairs: list[str]) -> dict[str, Any]:
    by_source = connection.execute(
        "select source, count(*), avg(length(caption) - length(replace(caption, ' ', '')) + 1) "
        "from captions group by source order by min(place), source"
    ).fetchall()
    images, repeated = _one(connection, "select count(distinct image_id), coalesce(sum(times - 1), 0) from captions")
    (orphans,) = _one(
        connection,
        "select count(*) from captions where image_id not in (select image_id from read_parquet(?))",
        [pairs],
    )
    return {
        "images": images,
        "captions": sum(number for _, number, _ in by_source) - orphans,
        "captions_by_source": {source: number for source, number, _ in by_source},
        "mean_words_by_source": {source: round(words, 2) for source, _, words in by_source},
        "repeated_captions": int(repeated),
        "orphans": orphans,
    }


def _one(connection: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any] | None = None) -> tuple[Any, ...]:
    return connection.execute(sql, parameters or []).fetchall()[0]


def _row_blocks(reader: pa.RecordBatchReader, mix: MixSettings) -> Iterator[list[dict[str, Any]]]:
    weigh = MIXES[mix.strategy]
    for batch in reader:
        rows = []
        for row in batch.to_pylist():
            if mix.strategy == "concatenate":
                for caption, source in zip(row["captions"], row["sources"], strict=True):
                    rows.append({**row, "captions": [caption], "sources": [source], "weights": [1.0]})
            else:
                rows.append({**row, "weights": weigh(row["sources"], mix)})
        if rows:
            yield rows


@contextmanager
def _json_writer(path: Path, *, enabled: bool) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Streams the seed's format, `[{"image", "caption", "source"}, ...]`, one caption a line."""
    if not enabled:
        yield lambda rows: None
        return
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n"

        def write(rows: list[dict[str, Any]]) -> None:
            nonlocal separator
            for row in rows:
                for caption, source in zip(row["captions"], row["sources"], strict=True):
                    entry = {"image": row["image"], "caption": caption, "source": source}
                    file.write(separator + json.dumps(entry, ensure_ascii=False))
                    separator = ",\n"

        yield write
        file.write("[]\n" if separator == "[\n" else "\n]\n")
