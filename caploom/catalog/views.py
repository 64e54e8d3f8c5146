"""The catalog's views: over the store's Parquet tables, and over the manifests of measurements.

A view names files by a pattern and takes those that belong to a finished artifact.
"""

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from caploom.catalog.schema import VIEWS, Relation, sql_type
from caploom.stages.registry import load_stage
from caploom.storage.records import FAILURES


@dataclass(frozen=True)
class _Tables:
    """Tables that steps write: their names as a pattern of DuckDB's `glob`, which their steps declare as it stands.

    Attributes:
        kind: of the artifacts; None of any.
        pattern: the tables' names.
        columns: of `t`, their rows with `_address` and, as a list, the path of the `_file` below it; and of `m`.
    """

    kind: str | None
    pattern: str
    columns: str

    @property
    def schema(self) -> pa.Schema:
        """What their columns are."""
        return load_stage(self.kind).tables[self.pattern] if self.kind is not None else FAILURES


_ROWS = "t.* exclude (_address, _file)"
_OVER_TABLES = {
    "pairs": _Tables("raw_pairs", "pairs.parquet", f"{_ROWS}, m.name[-1] as shard"),
    "ledger": _Tables("captions", "captions.parquet", f"{_ROWS}, m.name[-1] as shard"),
    "failures": _Tables(None, "failures.parquet", f"{_ROWS}, m.label as artifact"),
    "sheared": _Tables("sheared", "sheared.parquet", f"{_ROWS}, m.name[-2] as shear_fingerprint, m.name[-1] as shard"),
    "training_rows": _Tables(
        "training_set",
        "rows-*.parquet",
        "m.name[1] as recipe, image_id, image, path, unnest(captions) as caption, unnest(sources) as source,"
        " unnest(weights) as weight",
    ),
    "ranks": _Tables(
        "retrieval_metrics",
        "*/*/ranks.parquet",
        f"m.name[1] as recipe, _file[1] as stage, _file[2] as evaluation_set, {_ROWS}",
    ),
}

# Before version 2, DuckDB's `=` binds tighter than `->>`, hence the parentheses; and its `array_to_string` of an empty
# list is null.
_METRICS = """
with measured as (
    select address, name[1] as recipe, started, is_latest,
        unnest(from_json(summary -> 'measurements', '["JSON"]')) as m
    from manifests where kind = 'retrieval_metrics'
),
checkpoints as (
    select i.address, c.kind, c.address as checkpoint, c.configuration, c.summary
    from inputs i join manifests c on c.address = i.input_address
    where c.kind in ('checkpoint', 'finetuned_checkpoint')
),
trained as (
    select address, 'zero-shot' as stage, (summary ->> 'steps')::bigint as steps,
        (summary ->> 'samples_seen')::bigint as samples, (summary ->> 'seconds')::double as seconds
    from checkpoints where kind = 'checkpoint'
    union all
    select address, 'fine-tuned', sum((summary ->> 'steps')::bigint)::bigint,
        sum((summary ->> 'samples_seen')::bigint)::bigint, sum((summary ->> 'seconds')::double)
    from checkpoints group by address
),
sets as (
    select c.address, (c.configuration ->> 'seed')::bigint as seed, s.address as training_set, s.name[1] as base,
        from_json(s.configuration -> 'captioners', '["VARCHAR"]') as captioners,
        s.configuration -> 'mix' as mix,
        [
            (f ->> 'filter') || coalesce(' ' || (f ->> (f ->> 'filter')), '')
            for f in from_json(s.configuration -> 'filters', '["JSON"]')
        ] as filters,
        (s.summary ->> 'captions')::double / nullif((s.summary ->> 'images')::double, 0) as captions_per_image
    from checkpoints c join inputs i on i.address = c.checkpoint join manifests s on s.address = i.input_address
    where c.kind = 'checkpoint' and s.kind = 'training_set'
),
shears as (
    select i.address as training_set, s.configuration ->> 'shear' as shear
    from inputs i join manifests s on s.address = i.input_address where s.kind = 'sheared_captions'
)
select measured.recipe, seed, {names} as captioners, len(captioners) as n_captioners, shear,
    (mix ->> 'strategy') || coalesce(' ' || (mix ->> (mix ->> 'strategy')), '')
        || if((mix ->> 'sub_caption') = 'true', ', sub_caption', '')
        || if((mix ->> 'source_prefix') = 'true', ', source_prefix', '') as mix,
    {steps} as filters,
    m ->> 'stage' as stage, m ->> 'evaluation_set' as evaluation_set, m ->> 'scoring' as scoring,
    {recalls},
    (m ->> 'mean_recall@1')::double as mean_r1, (m ->> 'rsum')::double as rsum,
    (m ->> 'mean_rank_variance')::double as mean_rank_variance, captions_per_image,
    trained.steps as training_steps, trained.samples as samples_seen, trained.seconds as training_seconds,
    measured.address, started, base, is_latest
from measured
left join trained on trained.address = measured.address and trained.stage = (m ->> 'stage')
left join sets on sets.address = measured.address
left join shears using (training_set)
where (m ->> 'kind') = 'retrieval'
"""


UNREADABLE = "it cannot be read as a table; delete its folder and rebuild the artifact."
"""The problem recorded for a damaged table."""


def create_views(connection: duckdb.DuckDBPyConnection, root: str) -> None:
    """Create the catalog's views again, for the present artifacts; `root` is the prefix of their tables' names.

    A file keeps them as this version of DuckDB read them, and another one may refuse them: `about` says which it was.
    """
    recalls = ",\n    ".join(
        f"(m -> '{direction}' ->> 'recall@{k}')::double as r{k}_{short}"
        for short, direction in (("i2t", "image_to_text"), ("t2i", "text_to_image"))
        for k in (1, 5, 10)
    )
    names, steps = (f"if(len({name}) = 0, '', array_to_string({name}, ', '))" for name in ("captioners", "filters"))
    _create(connection, "metrics_history", _METRICS.format(recalls=recalls, names=names, steps=steps))
    _create(connection, "metrics", "select * exclude (is_latest) from metrics_history where is_latest")
    for name, tables in _OVER_TABLES.items():
        sources = _sources(connection, root, tables)
        try:
            _create(connection, name, _over(root, tables, sources))
        except duckdb.Error:
            # DuckDB reads a file to find the columns, and cannot read this one: the view names the readable ones.
            readable = [(_readable(connection, root, source), several) for source, several in sources]
            _create(connection, name, _over(root, tables, [each for each in readable if each[0]]))
    connection.execute("update about set duckdb = ?", [duckdb.__version__])
    connection.execute("begin")  # for all comments at once: each would be written to the disk by itself
    for relation in VIEWS:
        describe(connection, "view", relation)
    connection.execute("commit")


def _create(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    connection.execute(f"create or replace view {name} as {query}")


def describe(connection: duckdb.DuckDBPyConnection, what: str, relation: Relation) -> None:
    """Comment a table or view and its columns, for people who open the file."""
    connection.execute(f"comment on {what} {relation.name} is {quoted(relation.about)}")
    for column in relation.columns:
        connection.execute(f'comment on column {relation.name}."{column.name}" is {quoted(column.about)}')


def quoted(text: str) -> str:
    """A text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def as_pattern(path: str) -> str:
    """A path as a DuckDB pattern that matches only this path."""
    return "".join(f"[{character}]" if character in "[*?" else character for character in path)


_Sources = list[tuple[list[str], bool]]
"""Patterns of files, and whether they were written by several versions of the code."""


def _sources(connection: duckdb.DuckDBPyConnection, root: str, tables: _Tables) -> _Sources:
    kinds = connection.execute(
        "select m.kind, len(m.name), count(distinct m.code_version) > 1 from files f join manifests m using (address)"
        " where f.name glob ? and (?::text is null or m.kind = ?) group by all order by all",
        [tables.pattern, tables.kind, tables.kind],
    ).fetchall()
    # `[!.]*`: unfinished artifacts are in hidden folders next to the finished ones.
    return [
        ([f"{as_pattern(root)}/{kind}{'/*' * names}/[!.]*/{tables.pattern}"], several) for kind, names, several in kinds
    ]


def _over(root: str, tables: _Tables, sources: _Sources) -> str:
    """The query of a view: typed, and empty, when there are no files."""
    empty = ", ".join(f'null::{sql_type(field.type)} as "{field.name}"' for field in tables.schema)
    parts = [f"select {empty}, null::text as _address, null::text[] as _file where false"]
    columns = ", ".join(f'"{name}"' for name in tables.schema.names)
    below = tables.pattern.count("/") + 1  # parts of a file's path below the artifact's folder
    split = f"string_split(substr(filename, {len(root) + 2}), '/')"
    for patterns, several in sources:
        # Tables of another version of the code may have other columns: then they are read by name.
        read = "* exclude (filename)" if several else columns
        parts.append(
            f"select {read}, array_to_string({split}[:-{below + 1}], '/') as _address, {split}[-{below}:] as _file"
            f" from read_parquet([{', '.join(map(quoted, patterns))}], filename = true, hive_partitioning = false,"
            f" union_by_name = {several})"
        )
    return (
        f"with t as ({' union all by name '.join(parts)}) select {tables.columns}, m.address, m.is_latest"
        " from t join manifests m on m.address = t._address"
    )


def _readable(connection: duckdb.DuckDBPyConnection, root: str, patterns: list[str]) -> list[str]:
    """The files of some patterns that are tables; the others are recorded as damaged."""
    found = []
    for (file,) in connection.execute("select file from glob(?) order by file", [patterns]).fetchall():
        try:
            connection.execute("select * from read_parquet(?) limit 0", [as_pattern(file)])
            found.append(as_pattern(file))
        except duckdb.Error:
            connection.execute(
                "insert into damaged select address, ?, ? from manifests where starts_with(?, ? || address || '/')"
                " and ? not in (select path from damaged)",
                [file, f"{file}: {UNREADABLE}", file, f"{root}/", file],
            )
    return found
