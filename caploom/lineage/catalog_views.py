"""The catalog's views: the Parquet files of finished artifacts as tables, and the measurements as rows."""

import glob
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from caploom.records import CAPTIONS, FAILURES, PAIRS, RANKS, SHEARED, TRAINING_ROWS
from caploom.store import Store


@dataclass(frozen=True)
class _Tables:
    """The Parquet files that a view is over: which files of which kind, and what else a row says of its artifact."""

    view: str
    kind: str
    file: str
    depth: int
    schema: pa.Schema
    more: str
    what: str = "t.*"


_SHARD = "m.name[-1] as shard"
_VIEWS = (
    _Tables("pairs", "raw_pairs", "pairs.parquet", 4, PAIRS, _SHARD),
    _Tables("ledger", "captions", "captions.parquet", 5, CAPTIONS, _SHARD),
    _Tables("sheared", "sheared", "sheared.parquet", 5, SHEARED, f"m.name[2] as shear_fingerprint, {_SHARD}"),
    _Tables("training_images", "training_set", "rows-*.parquet", 3, TRAINING_ROWS, "m.name[1] as recipe"),
    _Tables("ranks", "retrieval_metrics", "*/*/ranks.parquet", 3, RANKS, "m.name[1] as recipe"),
    _Tables("pair_failures", "raw_pairs", "failures.parquet", 4, FAILURES, _SHARD),
    _Tables("caption_failures", "captions", "failures.parquet", 5, FAILURES, _SHARD),
)

_DERIVED = """
create or replace view failures as
    select null as captioner, * from pair_failures union all
    select string_split(address, '/')[2] as captioner, * from caption_failures;

create or replace view training_rows as
    select recipe, image_id, image, path, unnest(captions) as caption, unnest(sources) as source,
        unnest(weights) as weight, address, is_latest
    from training_images;

create or replace view metrics_history as
with measured as (
    select address, started, is_latest, name[1] as recipe, unnest(json_extract(summary, '$.measurements')::json[]) as m
    from manifests where kind = 'retrieval_metrics'
), checkpoints as (
    select i.address, i.input_address as checkpoint from inputs i where i.input_address like 'checkpoint/%'
), trained as (
    -- After which training it was measured: a fine-tuned model has the first stage's training behind it as well.
    select me.address, me.stage, sum((c.summary->>'steps')::bigint)::bigint as training_steps,
        sum((c.summary->>'samples_seen')::bigint)::bigint as samples_seen,
        sum((c.summary->>'seconds')::double) as training_seconds
    from (select distinct address, m->>'stage' as stage from measured) me
    join inputs i on i.address = me.address
    join manifests c on c.address = i.input_address
        and (c.kind = 'checkpoint' or (c.kind = 'finetuned_checkpoint' and me.stage = 'fine-tuned'))
    group by all
), made_from as (
    select k.address, t.address as training_set, t.configuration as configuration, t.summary as summary,
        s.configuration->>'shear' as shear, (c.configuration->>'seed')::bigint as seed
    from checkpoints k
    join manifests c on c.address = k.checkpoint
    join inputs i on i.address = k.checkpoint and i.position = 0
    join manifests t on t.address = i.input_address
    left join inputs j on j.address = t.address and j.position = 0
    left join manifests s on s.address = j.input_address
)
select me.recipe, f.seed,
    array_to_string(coalesce(json_extract_string(f.configuration, '$.captioners[*]'), []), ', ') as captioners,
    len(coalesce(json_extract_string(f.configuration, '$.captioners[*]'), [])) as n_captioners,
    f.shear,
    f.configuration->'mix'->>'strategy' as mix,
    f.configuration->'mix' as mix_settings,
    array_to_string(coalesce(json_extract_string(f.configuration, '$.filters[*].filter'), []), ', ') as filters,
    m->>'stage' as stage, m->>'evaluation_set' as evaluation_set, m->>'scoring' as scoring,
{recalls}
    (m->>'mean_recall@1')::double as mean_r1,
    (m->>'rsum')::double as rsum,
    (m->>'mean_rank_variance')::double as mean_rank_variance,
    (f.summary->>'captions')::double / nullif((f.summary->>'images')::double, 0) as captions_per_image,
    t.training_steps, t.samples_seen, t.training_seconds, me.address, me.started, me.is_latest
from measured me
left join made_from f on f.address = me.address
left join trained t on t.address = me.address and t.stage = me.m->>'stage'
where m->>'kind' = 'retrieval';

create or replace view metrics as select * exclude (is_latest) from metrics_history where is_latest;
"""
_RECALLS = "\n".join(
    f"""    (json_extract_string(m, '$.{direction}."recall@{k}"'))::double as r{k}_{short},"""
    for direction, short in (("image_to_text", "i2t"), ("text_to_image", "t2i"))
    for k in (1, 5, 10)
)


def create_views(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Views over what there is now: of a kind without artifacts, an empty one with the same columns."""
    there = {kind for (kind,) in connection.execute("select distinct kind from manifests").fetchall()}
    for tables in _VIEWS:
        connection.execute(_over_files(tables, store) if tables.kind in there else _empty(tables))
    connection.execute(_DERIVED.replace("{recalls}", _RECALLS))


def _over_files(tables: _Tables, store: Store) -> str:
    root = str(store.root.resolve())
    pattern = "/".join([glob.escape(root), tables.kind, *["*"] * (tables.depth - 1), tables.file])
    below = len(root.split("/")) + 1
    # Only what lies beside a manifest that the catalog knows: an unfinished or damaged artifact counts for nothing.
    return f"""
create or replace view {tables.view} as
select t.* exclude (filename), {tables.more}, m.address, m.is_latest
from read_parquet({_quoted(pattern)}, filename = true, hive_partitioning = false, union_by_name = true) t
join manifests m on m.address = array_to_string(string_split(t.filename, '/')[{below}:{below + tables.depth - 1}], '/')
"""


def _empty(tables: _Tables) -> str:
    columns = ", ".join(f"null::{_type(field.type)} as {field.name}" for field in tables.schema)
    more = ", ".join(f"null::text as {each.split(' as ')[1]}" for each in tables.more.split(", "))
    return (
        f"create or replace view {tables.view} as select {columns}, {more}, null::text as address, "
        "null::boolean as is_latest where false"
    )


def _type(arrow: pa.DataType) -> str:
    if pa.types.is_list(arrow):
        return f"{_type(arrow.value_type)}[]"
    names = {
        pa.string(): "text",
        pa.int16(): "smallint",
        pa.int32(): "integer",
        pa.int64(): "bigint",
        pa.float32(): "float",
        pa.bool_(): "boolean",
    }
    return names[arrow]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
