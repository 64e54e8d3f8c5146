"""Shows what a shear did: figures of each captioner and some captions before and after."""

from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from caploom.common.text import decimal, markdown_rows, markdown_text, percentage
from caploom.config.factory import Factory
from caploom.stages.captions import read_captions
from caploom.stages.sheared import tables_of
from caploom.storage.store import Artifact
from caploom.storage.tables import read_table

_EXAMPLES = 5  # per captioner
_LONGEST = 400  # characters shown of a text


def shear_markdown(sheared: Artifact) -> str:
    """Each captioner's lengths before and after as a Markdown table, and the length that `match_corpus` used."""
    rows = []
    for each in sheared.manifest.summary["captioners"]:
        figures = (each["mean_words_before"], each["mean_words_after"], each["share_cut"], each["share_at_cap"])
        shown = [*map(decimal, figures[:2]), *map(percentage, figures[2:])]
        rows.append([markdown_text(each["captioner"]), f"{each['captions']:,}", *shown])
    lines = markdown_rows(["captioner", "captions", "words before", "words after", "cut", "at the cap"], rows)
    for statistic, words in sheared.manifest.summary.get("corpus_words", {}).items():
        lines.append(f"\nRaw captions ({markdown_text(statistic)}): {words} words.")
    return "\n".join(lines)


def examples_markdown(factory: Factory, sheared: Artifact) -> str:
    """Some captions of each captioner that the shear shortened: the kept part and the rest."""
    rows = []
    tables = tables_of(factory, sheared)
    for captioner in sheared.manifest.configuration["captioners"]:
        for kept, before, after in cut_examples(factory, tables, captioner, _EXAMPLES):
            off = " … ".join(_shown(text) for text in (before, after) if text.strip())
            rows.append([markdown_text(captioner), _shown(kept), off])
    return "\n".join(markdown_rows(["captioner", "kept", "cut off"], rows)) if rows else "Nothing was cut."


def cut_examples(
    factory: Factory, tables: Sequence[Artifact], captioner: str, count: int
) -> list[tuple[str, str, str]]:
    """The first captions that were shortened, as (kept, cut off before it, cut off after it)."""
    examples: list[tuple[str, str, str]] = []
    for artifact in tables:
        if len(examples) >= count:
            break
        source = factory.store.read(artifact.manifest.inputs[0].address)
        if artifact.manifest.configuration["captioner"] != captioner or source is None:
            continue
        sheared = read_table(artifact.file("sheared.parquet"), ["start", "end", "cut"])
        chosen = pc.indices_nonzero(sheared.column("cut"))[: count - len(examples)]
        texts = read_captions(source).column("text").take(chosen).to_pylist()
        spans: list[dict[str, Any]] = sheared.take(chosen).to_pylist()
        for text, span in zip(texts, spans, strict=True):
            start, end = span["start"], span["end"]
            examples.append((text[start:end], text[:start], text[end:]))
    return examples


def _shown(text: str) -> str:
    return markdown_text(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …")
