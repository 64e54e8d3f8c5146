"""The filters that only read the texts. Each takes its settings and returns a judge of buckets of captions."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caploom.common.names import RAW_SOURCE
from caploom.errors import TrainingError
from caploom.training_set.caption_columns import image_numbers, text_column
from caploom.training_set.filter_context import FilterContext, Scan
from caploom.training_set.filter_settings import InLanguage, MaxRepeats, MinWords, NearDuplicates, NoEmpty
from caploom.training_set.near_duplicates import near_duplicates_of
from caploom.training_set.words import split_words

_SAYS_SOMETHING = r"[\p{L}\p{N}\p{So}]"  # a letter, a digit, or a picture such as an emoji
# Below this a language cannot be recognized: two short English words, four Chinese characters.
_SHORTEST_RECOGNIZED = 12  # bytes of UTF-8
_SLOTS = 2**24


@dataclass(frozen=True)
class Rule:
    """A judge of single buckets: `dropped(captions)` returns the rows to drop, for one reason."""

    reason: str
    dropped: Callable[[pa.Table], np.ndarray]

    def drops(self, captions: pa.Table) -> Mapping[str, np.ndarray]:
        """As `Prepared`."""
        return {self.reason: self.dropped(captions)}


def no_empty(step: NoEmpty, scan: Scan, context: FilterContext) -> Rule:
    """Drops captions without a letter, digit or emoji."""

    def dropped(captions: pa.Table) -> np.ndarray:
        says = pc.match_substring_regex(text_column(captions), _SAYS_SOMETHING)
        return np.asarray(~says.to_numpy(zero_copy_only=False))

    return Rule("no_empty", dropped)


def min_words(step: MinWords, scan: Scan, context: FilterContext) -> Rule:
    """Drops captions with fewer words; in scripts without spaces each character counts as one."""

    def dropped(captions: pa.Table) -> np.ndarray:
        owner, _ = split_words(text_column(captions))
        return np.bincount(owner, minlength=len(captions)) < step.min_words

    return Rule("min_words", dropped)


def language(step: InLanguage, scan: Scan, context: FilterContext) -> Rule:
    """Drops captions in other languages, recognized by py3langid, whose model is part of its package.

    A text of fewer than 12 bytes is kept: "red car" is too short to tell.
    """
    if importlib.util.find_spec("py3langid") is None:
        raise TrainingError(
            'The filter "language" needs the package py3langid: pip install "caploom[language]", or leave it out.'
        )
    from py3langid import langid

    langid.classify("")  # loads the model
    identifier: Any = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    known = sorted({str(code) for code in identifier.nb_classes})
    unknown = [code for code in step.language if code not in known]
    if unknown:
        raise TrainingError(f'The filter "language" does not know {", ".join(unknown)}; known: {", ".join(known)}.')

    def dropped(captions: pa.Table) -> np.ndarray:
        encoded = text_column(captions).dictionary_encode()
        long_enough = pc.greater_equal(pc.binary_length(encoded.dictionary), _SHORTEST_RECOGNIZED).to_pylist()
        other = [
            long and identifier.classify(text)[0] not in step.language
            for text, long in zip(encoded.dictionary.to_pylist(), long_enough, strict=True)
        ]
        return np.asarray(np.array(other, dtype=bool)[encoded.indices.to_numpy()])

    return Rule("language", dropped)


def max_repeats(step: MaxRepeats, scan: Scan, context: FilterContext) -> Rule:
    """Drops, for every image, captions that occur at more than a number of images, raw ones too.

    Two passes: the first counts in a table of 2**24 slots, the second counts exactly the captions in overfull slots. So
    memory grows with the captions that repeat and not with all of them.
    """
    slots = np.zeros(_SLOTS, np.int32)
    for hashes in scan.each(_hashes_once_an_image):
        np.add.at(slots, hashes % _SLOTS, 1)
    full = slots > step.max_repeats

    def suspects_of(captions: pa.Table) -> np.ndarray:
        hashes = _hashes_once_an_image(captions)
        return np.asarray(hashes[full[hashes % _SLOTS]])

    suspects = [np.zeros(0, np.uint64), *(scan.each(suspects_of) if full.any() else [])]
    hashes, counts = np.unique(np.concatenate(suspects), return_counts=True)
    repeated = hashes[counts > step.max_repeats]
    # By sorting: a table as large as the hashes' range is never worth it, and numpy 2.0.0 overflows trying it.
    return Rule("max_repeats", lambda captions: np.isin(_hashes(captions), repeated, kind="sort"))


def near_duplicates(step: NearDuplicates, scan: Scan, context: FilterContext) -> Rule:
    """Drops captions that are similar to a kept one of their image, in the order raw, then the YAML's captioners."""
    order = {source: position for position, source in enumerate([RAW_SOURCE, *context.captioners])}

    def dropped(captions: pa.Table) -> np.ndarray:
        sources = text_column(captions, "source").dictionary_encode()
        names = sources.dictionary.to_pylist()
        positions = np.array([order.get(name, len(order)) for name in names], np.int64)[sources.indices.to_numpy()]
        ranked = np.lexsort((positions, image_numbers(captions)))  # stable: equal places keep the table's order
        near = near_duplicates_of(
            text_column(captions).take(pa.array(ranked)), image_numbers(captions)[ranked], step.near_duplicates
        )
        result = np.zeros(len(captions), bool)
        result[ranked] = near
        return result

    return Rule("near_duplicates", dropped)


def _hashes(captions: pa.Table) -> np.ndarray:
    """64-bit hashes of the captions, uint64 of shape (captions,); DuckDB's, to be compared within one run only."""
    import duckdb  # only where it is asked: planning imports this module

    texts = pa.table({"caption": text_column(captions)})
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("texts", texts)
        return np.asarray(connection.sql("select hash(caption) as hash from texts").fetchnumpy()["hash"], np.uint64)


def _hashes_once_an_image(captions: pa.Table) -> np.ndarray:
    """As `_hashes`, with a caption that an image has from two sources counted once."""
    hashes, images = _hashes(captions), image_numbers(captions)
    order = np.lexsort((hashes, images))
    hashes, images = hashes[order], images[order]
    first = np.ones(len(hashes), bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (images[1:] != images[:-1])
    return np.asarray(hashes[first])
