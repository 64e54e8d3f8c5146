"""The rows that stages exchange, as Arrow schemas: the single definition of each stage's columns.

Everything joins on `image_id` (SHA-256 of the image file's bytes) and `pair_id` (hash of that and the raw caption);
nothing joins on position.
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


SOURCE_ROWS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # 1-based row in the user's file
        pa.field("image", pa.string(), nullable=False),  # as the user wrote it
        pa.field("caption", pa.string()),
        pa.field("path", pa.string()),  # absolute path, null when it must not be opened
        pa.field("reason", pa.string()),  # why the row is bad already, null when it is not
        pa.field("detail", pa.string()),
    ]
)

INBOX_FILES = pa.schema(
    [
        pa.field("place", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),  # of the file and its caption's, as they were taken
        pa.field("first_row", pa.int64(), nullable=False),  # of the file's own rows, from 0
        pa.field("rows", pa.int64(), nullable=False),  # of the file in this shard
        pa.field("finished", pa.bool_(), nullable=False),  # whether the file has no rows after them
    ]
)

PAIRS = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),  # the user's own path, kept for the exports
        pa.field("path", pa.string(), nullable=False),  # location (see caploom.images.location)
        pa.field("raw_caption", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),  # pixels
        pa.field("height", pa.int32(), nullable=False),  # pixels
        pa.field("row", pa.int64(), nullable=False),
        pa.field("phash", pa.uint64(), nullable=False),  # perceptual hash; 0 of a picture without features
    ]
)

KEPT_IMAGES = pa.schema(
    [
        pa.field("location", pa.string(), nullable=False),  # where the image lay
        pa.field("kept", pa.string(), nullable=False),  # where its copy is
    ]
)

FAILURES = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # the row number or the image's identity
        pa.field("image", pa.string(), nullable=False),  # the user's own path
        pa.field("reason", pa.string(), nullable=False),  # a short word to count by, e.g. "missing_image"
        pa.field("detail", pa.string(), nullable=False),  # one sentence for a person
        pa.field("attempt", pa.int32(), nullable=False),  # how often it has been tried
    ]
)

CAPTIONS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("captioner", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),  # of the captioner
        pa.field("text", pa.string(), nullable=False),  # unsheared
        pa.field("tokens", pa.int32()),  # new tokens, in the captioner's own tokenizer; null where not counted
        pa.field("finish_reason", pa.string(), nullable=False),  # "stop", "length", "shear" or "imported"
        pa.field("seconds", pa.float32(), nullable=False),  # this image's share of its batch's time
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("pair_id", pa.string()),  # of the raw caption that the prompt quotes; null when it quotes none
    ]
)

SHEARED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("captioner", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),  # the caption is text[start:end] of the ledger's text,
        pa.field("end", pa.int32(), nullable=False),  # counted in characters
        pa.field("caption", pa.string(), nullable=False),
        pa.field("source_words", pa.int32(), nullable=False),  # length before, in words
        pa.field("words", pa.int32(), nullable=False),  # length after, in words
        pa.field("cut", pa.bool_(), nullable=False),  # whether more than whitespace was cut off
        pa.field("at_cap", pa.bool_(), nullable=False),  # whether a rule that cuts at a length did
    ]
)

DROPPED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # "raw" or the captioner
        pa.field("caption", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # usually the filter that dropped it
    ]
)

SCORES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("key", pa.uint64(), nullable=False),  # of the image and the caption together
        pa.field("score", pa.float32(), nullable=False),  # cosine of the two embeddings, -1 to 1
    ]
)

NEAR_DUPLICATES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("duplicate_of", pa.string(), nullable=False),  # the image alike that stays
        pa.field("distance", pa.int16(), nullable=False),  # bits between their perceptual hashes
    ]
)

LEAKED_IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # of the training data
        pa.field("evaluation_image_id", pa.string(), nullable=False),  # the same where it is the same file
        pa.field("distance", pa.int16(), nullable=False),  # bits between their perceptual hashes
    ]
)

TRAINING_ROWS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),  # the user's own path
        pa.field("path", pa.string(), nullable=False),  # absolute path
        # The three lists are parallel: captions[i] is by sources[i] and is drawn with weights[i].
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("sources", pa.list_(pa.string()), nullable=False),
        pa.field("weights", pa.list_(pa.float32()), nullable=False),  # they add up to 1
    ]
)

RESIZED_IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # in the order of the array of pixels
    ]
)

EVALUATION_PAIRS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("fold", pa.int16()),  # recalls are averaged over the folds; null where there is only one
        pa.field("phash", pa.uint64(), nullable=False),  # as in PAIRS
    ]
)

CLASSIFICATION_IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),  # index of its class among the set's classes, from 0
        pa.field("phash", pa.uint64(), nullable=False),  # as in PAIRS
    ]
)

PREDICTIONS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),  # the image's class
        pa.field("predicted", pa.string(), nullable=False),  # the class of the highest score
        pa.field("rank", pa.int32(), nullable=False),  # of the image's class; 1 is best
        pa.field("label_score", pa.float32(), nullable=False),  # cosine, -1 to 1
        pa.field("predicted_score", pa.float32(), nullable=False),
    ]
)

RANKS = pa.schema(
    [
        pa.field("direction", pa.string(), nullable=False),  # "image_to_text" or "text_to_image"
        pa.field("query", pa.string(), nullable=False),  # image_id, or image_id#caption-index
        pa.field("rank", pa.int32(), nullable=False),  # 1 is best: rank of the best positive
        pa.field("scoring", pa.string(), nullable=False),  # "cosine"; of BLIP "ITC", and that with re-ranking
        pa.field("fold", pa.int16()),  # among whose candidates it ranks; null where the set is searched whole
    ]
)
