"""The catalog's tables and views, their columns, and what each means."""

from dataclasses import dataclass

import pyarrow as pa

from caploom.storage.records import CAPTIONS, FAILURES, PAIRS, RANKS, SHEARED

VERSION = 3
"""Version of the catalog's file; one of another version is rebuilt. Raise it whenever anything below changes."""


@dataclass(frozen=True)
class Column:
    """A column: its name, its SQL type and what it means."""

    name: str
    type: str
    about: str


@dataclass(frozen=True)
class Relation:
    """A table or a view."""

    name: str
    about: str
    columns: tuple[Column, ...]


_ADDRESS = Column("address", "text", "the artifact: its folder below the store")
_LATEST = Column("is_latest", "boolean", "whether the artifact is the newest of its label")
_SHARD = Column("shard", "text", "the shard")

MANIFESTS = Relation(
    "manifests",
    "one row per finished artifact: its manifest",
    (
        _ADDRESS,
        Column("kind", "text", "captions, training_set, checkpoint, ..."),
        Column("name", "text[]", "the part of the address between kind and fingerprint"),
        Column("label", "text", "its name for people and in the UI"),
        Column("fingerprint", "text", "hash of the configuration, code version and inputs"),
        Column("data_version", "text", "hash of what was written"),
        Column("code_version", "text", "version of the stage's own code"),
        Column("configuration", "json", "its configuration"),
        Column("seeds", "json", "seeds by their purpose"),
        Column("rows_in", "bigint", "rows that came in"),
        Column("rows_out", "bigint", "rows that went out"),
        Column("rows_failed", "bigint", "rows that failed"),
        Column("unit", "text", "what a row is: images, captions, ..."),
        Column("reasons", "json", "failed rows by reason"),
        Column("summary", "json", "the stage's own figures"),
        Column("packages", "json", "versions of the packages that decide results"),
        Column("device", "text", "where it was made: cpu, cuda, ..."),
        Column("run_id", "text", "the Dagster run that made it"),
        Column("started", "timestamptz", "when making it began"),
        Column("seconds", "double", "how long it took"),
        _LATEST,
        Column("caploom_version", "text", "the Caploom that made it"),
    ),
)

INPUTS = Relation(
    "inputs",
    "one row per artifact and input that it was made from",
    (
        _ADDRESS,
        Column("position", "integer", "position among the inputs, from 0"),
        Column("input_address", "text", "the input's address"),
        Column("input_data_version", "text", "the input's data version at that time"),
    ),
)

FILES = Relation(
    "files",
    "one row per file of an artifact",
    (
        _ADDRESS,
        Column("name", "text", "path below the artifact's folder"),
        Column("sha256", "text", "hash of its bytes"),
        Column("size", "bigint", "bytes"),
    ),
)

IMAGES = Relation(
    "images",
    "one row per image and raw pairs that contain it, of every version",
    (
        Column("word", "ubigint", "the first 64 bits of the image's identity"),
        _SHARD,
        _ADDRESS,
    ),
)

DAMAGED = Relation(
    "damaged",
    "files that cannot be read or trusted: no other table includes them",
    (
        Column("address", "text", "the artifact that it would be"),
        Column("path", "text", "the file"),
        Column("problem", "text", "what is wrong and what to do, in a sentence"),
    ),
)

STAMPS = Relation(
    "seen",
    "internal: the manifests that the catalog has read",
    (
        _ADDRESS,
        Column("mtime_ns", "bigint", "when the manifest was written, nanoseconds"),
        Column("size", "bigint", "its bytes"),
    ),
)

INFO = Relation(
    "about",
    "internal: the store that the catalog describes",
    (
        Column("version", "integer", "version of the catalog's layout"),
        Column("root", "text", "the store"),
        Column("duckdb", "text", "the version of DuckDB that wrote the views"),
    ),
)

TABLES = (MANIFESTS, INPUTS, FILES, IMAGES, DAMAGED, STAMPS, INFO)

_MEANINGS = {
    "pair_id": "identity of the pair: of its image and raw caption",
    "image_id": "identity of the image: SHA-256 of its file",
    "image": "its path as the user wrote it",
    "path": "where its bytes were when first read: a file, or a range of one",
    "phash": "perceptual hash: similar pictures differ in few bits; 0 for plain colours",
    "raw_caption": "the caption that came with it",
    "width": "pixels",
    "height": "pixels",
    "row": "its row in the source, from 1",
    "captioner": "the captioner",
    "fingerprint": "the captioner's fingerprint: of model, prompt, decoding, ...",
    "text": "the caption, unsheared",
    "tokens": "new tokens, by the captioner's own tokenizer",
    "finish_reason": "why it ended: stop, length, shear or imported",
    "seconds": "the image's share of its batch's time",
    "attempt": "how often it was tried",
    "start": "the kept part's first character in the ledger's text",
    "end": "the character after its last one",
    "caption": "the caption",
    "source_words": "words before the shear",
    "words": "words after it",
    "cut": "whether more than whitespace was cut off",
    "at_cap": "whether a rule that cuts at a length did",
    "stage": "the stage in which it failed",
    "key": "row of the source, or identity of the image",
    "reason": "a short word to count by",
    "detail": "what happened, in a sentence",
    "direction": "image_to_text or text_to_image",
    "query": "image_id, or image_id#number of the caption",
    "rank": "rank of the best right answer; 1 is best",
    "scoring": "how a pair is scored: cosine; of BLIP, ITC, and that with re-ranking",
    "fold": "the class whose candidates it ranks among; null where the whole set is searched",
}


def _columns(schema: pa.Schema) -> tuple[Column, ...]:
    return tuple(Column(field.name, sql_type(field.type), _MEANINGS[field.name]) for field in schema)


def sql_type(kind: pa.DataType) -> str:
    """The SQL type of a column of the store's tables."""
    names = {
        pa.list_(pa.string()): "text[]",
        pa.list_(pa.float32()): "float[]",
        pa.string(): "text",
        pa.bool_(): "boolean",
        pa.float32(): "float",
    }
    integers = {pa.uint64(): "ubigint", pa.int64(): "bigint", pa.int32(): "integer", pa.int16(): "smallint"}
    return (names | integers)[kind]


_MADE = (_ADDRESS, _LATEST)
PAIRS_VIEW = Relation("pairs", "the raw pairs, of every version", (*_columns(PAIRS), _SHARD, *_MADE))
LEDGER_VIEW = Relation("ledger", "every caption ever made, in finished shards", (*_columns(CAPTIONS), _SHARD, *_MADE))
FAILURES_VIEW = Relation(
    "failures", "rows that failed", (*_columns(FAILURES), Column("artifact", "text", "the artifact's label"), *_MADE)
)
SHEARED_VIEW = Relation(
    "sheared",
    "the parts of captions that shears kept",
    (*_columns(SHEARED), Column("shear_fingerprint", "text", "hash of the shear's rules"), _SHARD, *_MADE),
)
TRAINING_ROWS_VIEW = Relation(
    "training_rows",
    "training sets: one row per image and caption that training may draw",
    (
        Column("recipe", "text", "the training set's name: the recipe without its seed"),
        Column("image_id", "text", _MEANINGS["image_id"]),
        Column("image", "text", _MEANINGS["image"]),
        Column("path", "text", _MEANINGS["path"]),
        Column("caption", "text", "the caption"),
        Column("source", "text", "its source: raw, or a captioner"),
        Column("weight", "float", "the probability that it is drawn among the row's captions"),
        *_MADE,
    ),
)
_MEASURED = (
    Column("stage", "text", "after which training: zero-shot or fine-tuned"),
    Column("evaluation_set", "text", "the evaluation set"),
)
RANKS_VIEW = Relation(
    "ranks",
    "single queries of retrieval",
    (Column("recipe", "text", "the recipe"), *_MEASURED, *_columns(RANKS), *_MADE),
)

_RECALLS = tuple(
    Column(f"r{k}_{short}", "double", f"Recall@{k}, {direction}, a fraction from 0 to 1")
    for short, direction in (("i2t", "image to text"), ("t2i", "text to image"))
    for k in (1, 5, 10)
)
_METRICS = (
    Column("recipe", "text", "the recipe, with its seed where it has several"),
    Column("seed", "bigint", "the seed of its training"),
    Column("captioners", "text", "its captioners; empty for raw captions only"),
    Column("n_captioners", "bigint", "how many"),
    Column("shear", "text", "its shear"),
    Column("mix", "text", "how training draws among an image's captions"),
    Column("filters", "text", "its filters"),
    *_MEASURED,
    Column("scoring", "text", _MEANINGS["scoring"]),
    *_RECALLS,
    Column("mean_r1", "double", "mean of both directions' Recall@1"),
    Column("rsum", "double", "sum of the six recalls in percent"),
    Column("mean_rank_variance", "double", "variance of the ranks, mean of both directions"),
    Column("captions_per_image", "double", "captions of an image in the training set, on average"),
    Column("training_steps", "bigint", "steps of training until then"),
    Column("samples_seen", "bigint", "samples of training until then"),
    Column("training_seconds", "double", "seconds of training until then"),
    _ADDRESS,
    Column("started", "timestamptz", "when it was measured"),
    Column("base", "text", "the recipe without its seed"),
)
METRICS_VIEW = Relation("metrics", "one row per recipe, evaluation set, stage and scoring: the newest", _METRICS)
METRICS_HISTORY_VIEW = Relation("metrics_history", "the same for every version ever measured", (*_METRICS, _LATEST))

VIEWS = (
    METRICS_VIEW,
    METRICS_HISTORY_VIEW,
    PAIRS_VIEW,
    LEDGER_VIEW,
    FAILURES_VIEW,
    SHEARED_VIEW,
    TRAINING_ROWS_VIEW,
    RANKS_VIEW,
)

SHOWN = (*VIEWS, *TABLES[:5])
"""What people ask: all but the catalog's own."""
