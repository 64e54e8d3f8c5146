"""The rows that stages exchange, as Arrow schemas: the single definition of each stage's columns.

Everything joins on `image_id` (SHA-256 of the image file's bytes) and `pair_id` (hash of that and the raw caption);
nothing joins on position. Where the images of a `path` lie now is said by `caploom.stages.moves.moves_of`.
"""

import hashlib

import pyarrow as pa


def image_identity(data: bytes) -> str:
    """The identity of an image: hexadecimal SHA-256 of its file's bytes."""
    return hashlib.sha256(data).hexdigest()


def pair_identity(image_id: str, caption: str) -> str:
    """The identity of a pair: hexadecimal SHA-256 of the image's identity, a newline, and the raw caption in UTF-8."""
    # surrogatepass: JSON may contain lone surrogates, and every accepted text needs an identity.
    return hashlib.sha256(f"{image_id}\n{caption}".encode("utf-8", "surrogatepass")).hexdigest()


def optional(kind: pa.DataType) -> pa.Field:
    """A column of this type that may be null."""
    return pa.field("", kind)


def schema_of(**columns: pa.DataType | pa.Field) -> pa.Schema:
    """A schema of these columns, in this order; only an `optional` one may be null."""
    return pa.schema(
        [
            column.with_name(name) if isinstance(column, pa.Field) else pa.field(name, column, nullable=False)
            for name, column in columns.items()
        ]
    )


SOURCE_ROWS = schema_of(
    row=pa.int64(),  # 1-based row in the user's file
    image=pa.string(),  # as the user wrote it
    caption=optional(pa.string()),
    path=optional(pa.string()),  # location when its source was first read; null when it must not be opened
    reason=optional(pa.string()),  # why the row is bad already, null when it is not
    detail=optional(pa.string()),
)

INBOX_FILES = schema_of(
    place=pa.string(),
    version=pa.string(),  # of the file and its caption's, as they were taken
    first_row=pa.int64(),  # of the file's own rows, from 0
    rows=pa.int64(),  # of the file in this shard
    finished=pa.bool_(),  # whether the file has no rows after them
)

PAIRS = schema_of(
    pair_id=pa.string(),
    image_id=pa.string(),
    image=pa.string(),  # the user's own path, kept for the exports
    path=pa.string(),  # location (see caploom.images.location) when its source was first read, or in the store
    raw_caption=pa.string(),  # empty where the image came without one
    width=pa.int32(),  # pixels
    height=pa.int32(),  # pixels
    row=pa.int64(),
    phash=pa.uint64(),  # perceptual hash; 0 of a picture without features
)

KEPT_IMAGES = schema_of(
    location=pa.string(),  # where the image lay
    kept=pa.string(),  # where its copy is
)

FAILURES = schema_of(
    stage=pa.string(),
    key=pa.string(),  # the row number or the image's identity
    image=pa.string(),  # the user's own path
    reason=pa.string(),  # a short word to count by, e.g. "missing_image"
    detail=pa.string(),  # one sentence for a person
    attempt=pa.int32(),  # how often it has been tried
)

CAPTIONS = schema_of(
    image_id=pa.string(),
    captioner=pa.string(),
    fingerprint=pa.string(),  # of the captioner
    text=pa.string(),  # unsheared
    tokens=optional(pa.int32()),  # new tokens, in the captioner's own tokenizer; null where not counted
    finish_reason=pa.string(),  # "stop", "length", "shear" or "imported"
    seconds=pa.float32(),  # this image's share of its batch's time
    attempt=pa.int32(),
    pair_id=optional(pa.string()),  # of the raw caption that the prompt quotes; null when it quotes none
)

SHEARED = schema_of(
    image_id=pa.string(),
    captioner=pa.string(),
    start=pa.int32(),  # the caption is text[start:end] of the ledger's text,
    end=pa.int32(),  # counted in characters
    caption=pa.string(),
    source_words=pa.int32(),  # length before, in words
    words=pa.int32(),  # length after, in words
    cut=pa.bool_(),  # whether more than whitespace was cut off
    at_cap=pa.bool_(),  # whether a rule that cuts at a length did
)

DROPPED = schema_of(
    image_id=pa.string(),
    source=pa.string(),  # "raw" or the captioner
    caption=pa.string(),
    reason=pa.string(),  # usually the filter that dropped it
)

SCORES = schema_of(
    image_id=pa.string(),
    key=pa.uint64(),  # of the image and the caption together
    score=pa.float32(),  # cosine of the two embeddings, -1 to 1
)

NEAR_DUPLICATES = schema_of(
    image_id=pa.string(),
    duplicate_of=pa.string(),  # the image alike that stays
    distance=pa.int16(),  # bits between their perceptual hashes
)

LEAKED_IMAGES = schema_of(
    image_id=pa.string(),  # of the training data
    evaluation_image_id=pa.string(),  # the same where it is the same file
    distance=pa.int16(),  # bits between their perceptual hashes
)

TRAINING_ROWS = schema_of(
    image_id=pa.string(),
    image=pa.string(),  # the user's own path
    path=pa.string(),  # as in PAIRS
    # The three lists are parallel: captions[i] is by sources[i] and is drawn with weights[i].
    captions=pa.list_(pa.string()),
    sources=pa.list_(pa.string()),
    weights=pa.list_(pa.float32()),  # they add up to 1
)

RESIZED_IMAGES = schema_of(
    image_id=pa.string(),  # in the order of the array of pixels
)

EVALUATION_PAIRS = schema_of(
    image_id=pa.string(),
    image=pa.string(),
    path=pa.string(),
    captions=pa.list_(pa.string()),
    fold=optional(pa.int16()),  # recalls are averaged over the folds; null where there is only one
    phash=pa.uint64(),  # as in PAIRS
)

CLASSIFICATION_IMAGES = schema_of(
    image_id=pa.string(),
    image=pa.string(),
    path=pa.string(),
    label=pa.int32(),  # index of its class among the set's classes, from 0
    phash=pa.uint64(),  # as in PAIRS
)

PREDICTIONS = schema_of(
    image_id=pa.string(),
    image=pa.string(),
    label=pa.string(),  # the image's class
    predicted=pa.string(),  # the class of the highest score
    rank=pa.int32(),  # of the image's class; 1 is best
    label_score=pa.float32(),  # cosine, -1 to 1
    predicted_score=pa.float32(),
)

RANKS = schema_of(
    direction=pa.string(),  # "image_to_text" or "text_to_image"
    query=pa.string(),  # image_id, or image_id#caption-index
    rank=pa.int32(),  # 1 is best: rank of the best positive
    scoring=pa.string(),  # "cosine"; of BLIP "ITC", and that with re-ranking
    fold=optional(pa.int16()),  # among whose candidates it ranks; null where the set is searched whole
)
