"""Statistics of a captioner's captions that show at a glance whether it works: lengths, cut-offs, phrases, overlap."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from caploom.common.text import columns, decimal, markdown_rows, markdown_text, percentage, printable
from caploom.config.factory import Factory
from caploom.errors import StoreError
from caploom.stages.captions import read_captions
from caploom.stages.graph import Graph, graph_of
from caploom.stages.raw_pairs import captioned, read_pairs
from caploom.stages.stage import Ref
from caploom.storage.records import CAPTIONS, PAIRS
from caploom.storage.store import Artifact, Store

REFUSAL_OPENINGS = (
    "I'm sorry",
    "I am sorry",
    "Sorry",
    "I apologize",
    "I cannot",
    "I can't",
    "I'm unable",
    "I am unable",
    "I'm not able",
    "I am not able",
    "I don't see",
    "I do not see",
    "As an AI",
    "As a language model",
    "As a large language model",
    "Unfortunately, I",
)
"""A caption that begins with one of these declines to describe its image."""

_SHOWING = ("shows", "depicts", "features", "displays", "captures", "contains", "portrays", "is")
_NOUNS = {"image": "an image", "picture": "a picture", "photo": "a photo", "photograph": "a photograph"}
BOILERPLATE_OPENINGS = tuple(
    opening
    for noun, a_noun in _NOUNS.items()
    for opening in (
        *(f"the {noun} {verb}" for verb in _SHOWING),
        *(f"this {noun} {verb}" for verb in _SHOWING),
        f"in the {noun}",
        f"in this {noun}",
        f"this is {a_noun} of",
        f"{a_noun} of",
    )
)
"""A caption that begins with one of these wastes its first words."""

_OPENING_WORDS = 3
_OPENINGS = 10
_WORD = re.compile(r"\w+(?:['’-]\w+)*")


@dataclass(frozen=True)
class CaptionStatistics:
    """Statistics of one captioner's captions of some images.

    Lengths are in words, separated by whitespace. Shares, 0 to 1, are of `captions`, but `share_empty` includes
    the empty ones. Overlaps are means over images of the Jaccard index of the two captions' sets of words (lower
    case, without punctuation). A figure is None where it is undefined.
    """

    captions: int
    mean_words: float | None
    median_words: float | None
    p95_words: float | None
    mean_tokens: float | None
    share_at_token_cap: float | None
    share_stopped_by_shear: float | None
    share_empty: float | None
    share_refusal: float | None
    share_boilerplate: float | None
    commonest_openings: tuple[tuple[str, int], ...]
    words_shared_with_raw: float | None
    words_shared_with: dict[str, float | None]


def caption_statistics(
    captions: pa.Table, raw: pa.Table, others: Mapping[str, pa.Table], empty: int = 0
) -> CaptionStatistics:
    """The statistics of one captioner's captions (schema CAPTIONS).

    `raw` has the columns `image_id` and `raw_caption`, several rows per image with several raw captions: the one
    with the largest overlap counts. `others` are the captions of other captioners by name; only images that both have
    captioned count. `empty` is the number of images that failed because of an empty caption.
    """
    texts: list[str] = captions.column("text").to_pylist()
    words = [_words(text) for text in texts]
    words_of = _by_image(captions.column("image_id").to_pylist(), words)
    lengths = [len(text.split()) for text in texts]
    tokens = [count for count in captions.column("tokens").to_pylist() if count is not None]
    ends = Counter(captions.column("finish_reason").to_pylist())
    total = len(texts)
    return CaptionStatistics(
        captions=total,
        mean_words=_mean(lengths),
        median_words=float(np.median(lengths)) if lengths else None,
        p95_words=float(np.percentile(lengths, 95)) if lengths else None,
        mean_tokens=_mean(tokens),
        share_at_token_cap=_share(ends["length"], total),
        share_stopped_by_shear=_share(ends["shear"], total),
        share_empty=_share(empty, total + empty),
        share_refusal=_share(_opened_by(REFUSAL_OPENINGS, texts), total),
        share_boilerplate=_share(_opened_by(BOILERPLATE_OPENINGS, texts), total),
        commonest_openings=_commonest(" ".join(word[:_OPENING_WORDS]) for word in words),
        words_shared_with_raw=_overlap(words_of, _words_in(captioned(raw), "raw_caption")),
        words_shared_with={name: _overlap(words_of, _words_in(table, "text")) for name, table in others.items()},
    )


def statistics_of_shards(factory: Factory | Graph, captioner: str, shards: Sequence[str]) -> CaptionStatistics:
    """The statistics of a captioner's captions of some shards, compared with the raw ones and other captioners'.

    Example:
        >>> found = statistics_of_shards(factory, "colours", ["shard-00000"])
        >>> found.captions, found.mean_words, found.share_refusal
        (10, 10.0, 0.0)
    """
    graph = graph_of(factory)
    said = {
        name: _whole(graph.existing(Ref("captions", (name, shard)) for shard in shards))
        for name in dict.fromkeys([captioner, *graph.config.captioners])
    }
    captions, empty = said.pop(captioner)
    raw = [read_pairs(graph.require(Ref("raw_pairs", (shard,)))) for shard in shards]
    raw_captions = pa.concat_tables([PAIRS.empty_table(), *raw]).select(["image_id", "raw_caption"])
    spoken = {name: table for name, (table, _) in said.items() if len(table)}
    return caption_statistics(captions, raw_captions, spoken, empty)


def statistics_of_artifacts(store: Store, captions: Sequence[Artifact]) -> CaptionStatistics:
    """The statistics of a captioner's finished captions, compared with the raw ones that they were made from.

    Raises `StoreError` when those are gone.
    """
    table, empty = _whole(captions)
    raw = [PAIRS.empty_table()]
    for address in dict.fromkeys(record.address for caption in captions for record in caption.manifest.inputs):
        pairs = store.read(address)
        if pairs is None:
            raise StoreError(f"{address}: these raw pairs are gone, but captions that were made from them are there.")
        raw.append(read_pairs(pairs))
    return caption_statistics(table, pa.concat_tables(raw).select(["image_id", "raw_caption"]), {}, empty)


def _whole(captions: Sequence[Artifact]) -> tuple[pa.Table, int]:
    """All captions together, and the number of images with empty captions."""
    reasons = [artifact.manifest.rows.reasons for artifact in captions if artifact.manifest.rows is not None]
    empty = sum(reason.get("empty_caption", 0) for reason in reasons)
    return pa.concat_tables([CAPTIONS.empty_table(), *map(read_captions, captions)]), empty


def statistics_markdown(statistics: CaptionStatistics) -> str:
    """The statistics as a Markdown table; captions are shown as text, whatever is in them."""
    return "\n".join(markdown_rows(("figure", "value"), (map(markdown_text, row) for row in _figures(statistics))))


def statistics_text(statistics: CaptionStatistics) -> str:
    """The statistics as aligned lines for a terminal, which no caption can control."""
    return "\n".join(columns([[printable(cell) for cell in row] for row in _figures(statistics)], words=(0, 1)))


def _figures(statistics: CaptionStatistics) -> list[tuple[str, str]]:
    lengths = (statistics.mean_words, statistics.median_words, statistics.p95_words)
    return [
        ("captions", f"{statistics.captions:,}"),
        ("words: mean, median, 95th percentile", ", ".join(map(decimal, lengths))),
        ("tokens: mean", decimal(statistics.mean_tokens)),
        ("at the token cap", percentage(statistics.share_at_token_cap)),
        ("stopped by the shear", percentage(statistics.share_stopped_by_shear)),
        ("empty", percentage(statistics.share_empty)),
        ("refusals", percentage(statistics.share_refusal)),
        ("boilerplate openings", percentage(statistics.share_boilerplate)),
        ("words shared with the raw caption", percentage(statistics.words_shared_with_raw)),
        *((f"words shared with {name}", percentage(share)) for name, share in statistics.words_shared_with.items()),
        *(
            (f"opening {number}", f"{opening} ({count:,})")
            for number, (opening, count) in enumerate(statistics.commonest_openings, start=1)
        ),
    ]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _by_image(image_ids: Sequence[str], words: Iterable[list[str]]) -> dict[str, list[set[str]]]:
    words_of: dict[str, list[set[str]]] = {}
    for image_id, each in zip(image_ids, words, strict=True):
        words_of.setdefault(image_id, []).append(set(each))
    return words_of


def _words_in(table: pa.Table, column: str) -> dict[str, list[set[str]]]:
    texts = (_words(text) for text in table.column(column).to_pylist())
    return _by_image(table.column("image_id").to_pylist(), texts)


def _overlap(one: Mapping[str, list[set[str]]], other: Mapping[str, list[set[str]]]) -> float | None:
    """Mean of the best Jaccard index over the images that both have."""
    return _mean([max(_jaccard(a, b) for a in one[image] for b in other[image]) for image in one if image in other])


def _jaccard(a: set[str], b: set[str]) -> float:
    shared = len(a & b)
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0  # two texts without a word share none


def _opened_by(openings: Sequence[str], texts: Iterable[str]) -> int:
    # The word must end there: "As an aircraft" is not "As an AI".
    pattern = re.compile(rf"\W*(?:{'|'.join(re.escape(opening) for opening in openings)})\b", re.IGNORECASE)
    return sum(pattern.match(text.replace("’", "'")) is not None for text in texts)


def _commonest(openings: Iterable[str]) -> tuple[tuple[str, int], ...]:
    counts = Counter(opening for opening in openings if opening)
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_OPENINGS])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _share(count: int, total: int) -> float | None:
    return count / total if total else None
