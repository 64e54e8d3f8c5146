"""The factory's artifacts as Arrow tables."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from caploom.common.settings import nearest
from caploom.errors import ConfigError
from caploom.evaluation.measure_set import CLASSIFICATION, RETRIEVAL
from caploom.questions.results.latest_results import LatestResults
from caploom.questions.results.results import CLASSIFICATION_FIGURES, RECALL_AT, measurements_of
from caploom.storage.records import optional, schema_of
from caploom.storage.tables import read_batches, read_table

_DIRECTIONS = {"i2t": "image_to_text", "t2i": "text_to_image"}
_RECALLS = {f"r{k}_{short}": (direction, f"recall@{k}") for short, direction in _DIRECTIONS.items() for k in RECALL_AT}
_FIGURES = {"mean_r1": "mean_recall@1", "chance_mean_r1": "mean_chance@1", "rsum": "rsum"}

METRICS = schema_of(
    recipe=pa.string(),
    base=pa.string(),  # the recipe's name without its seed's
    seed=pa.int64(),
    evaluation_set=pa.string(),
    stage=pa.string(),  # "zero-shot" or "fine-tuned"
    scoring=pa.string(),  # "cosine"; of BLIP "ITC", and that with re-ranking
    kind=pa.string(),  # "retrieval" or "classification": the figures of the other are null
    # All but rsum, which is in percent, are shares, 0 to 1.
    **dict.fromkeys((*_RECALLS, *_FIGURES, *CLASSIFICATION_FIGURES), optional(pa.float64())),
    on_present_data=pa.bool_(),  # whether it was trained on the data as it is now
    address=pa.string(),  # of the artifact
)


def read_files(
    files: Iterable[Path], schema: pa.Schema, columns: Sequence[str] | None = None, limit: int | None = None
) -> pa.Table:
    """The rows of some Parquet files, one file after another; only these columns, and at most `limit` rows.

    Files behind the limit are not read. Raises `ConfigError` for a column that is not in the schema, and `StoreError`
    for a file that cannot be read.
    """
    names = schema.names if columns is None else list(columns)
    for name in names:
        if name not in schema.names:
            raise ConfigError(
                f'There is no column "{name}"; known: {", ".join(schema.names)}{nearest(name, schema.names)}.'
            )
    if limit is not None and limit < 0:
        raise ConfigError(f"limit is {limit}; give a number of rows, or leave it out for all.")
    tables = [pa.schema([schema.field(name) for name in names]).empty_table()]
    left = limit
    for file in files:
        if left is None:
            tables.append(read_table(file, names))
        elif left > 0:
            first = next(read_batches(file, names, left), None)
            # A batch has its columns in the file's order.
            found = tables[0] if first is None else pa.Table.from_batches([first]).select(names)
            tables.append(found)
            left -= len(found)
    return pa.concat_tables(tables[1:] or tables)


def metrics_table(latest: LatestResults) -> pa.Table:
    """Each recipe's latest measurements (schema METRICS), one row a recipe, evaluation set, stage and scoring."""
    rows: list[dict[str, Any]] = []
    for arm in latest.arms:
        about = {
            "recipe": arm.recipe.name,
            "base": arm.recipe.base,
            "seed": arm.recipe.seed,
            "on_present_data": arm.recipe.name not in latest.on_earlier_data,
            "address": arm.metrics.manifest.address,
        }
        measured = [each for kind in (RETRIEVAL, CLASSIFICATION) for each in measurements_of(arm.metrics, kind)]
        rows += [{**about, **_figures(each)} for each in measured]
    return pa.Table.from_pylist(rows, schema=METRICS)


def _figures(measured: dict[str, Any]) -> dict[str, Any]:
    about = {key: measured[key] for key in ("evaluation_set", "stage", "scoring", "kind")}
    if measured["kind"] != RETRIEVAL:
        return about | {name: measured.get(name) for name in CLASSIFICATION_FIGURES}
    recalls = {name: measured[direction].get(figure) for name, (direction, figure) in _RECALLS.items()}
    return about | recalls | {name: measured.get(figure) for name, figure in _FIGURES.items()}
