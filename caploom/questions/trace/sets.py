"""The training sets that contain an image's captions, with their weights, and why others are not included."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caploom.common.names import RAW_SOURCE
from caploom.common.text import time_text
from caploom.errors import StoreError
from caploom.questions.trace.context import TraceContext
from caploom.questions.trace.records import TracedCaption, TracedLanding, TracedPair, TracedTrainingSet
from caploom.questions.trace.rows import rows_of_image
from caploom.storage.tables import read_metadata

_Key = tuple[str, str]  # source and caption


def traced_training_sets(
    context: TraceContext, pairs: list[TracedPair], captions: list[TracedCaption]
) -> list[TracedTrainingSet]:
    """The training sets made from the image's pairs, the newest first."""
    made = context.made_from(
        list(dict.fromkeys(pair.address for pair in pairs)),
        "training_set",
        "address, name, epoch(started), is_latest, (seeds->>'order')::bigint, rows_failed",
    )
    sets = []
    for address, name, started, is_latest, seed, failed in reversed(made):
        try:
            rows = rows_of_image(_files(context, address, "rows"), context.image_id, seed or 0)
            dropped = _dropped(context, _files(context, address, "dropped")) if failed else {}
        except StoreError as error:
            context.notes.append(str(error))
            continue
        landed = [
            TracedLanding(source, caption, round(weight, 6))
            for row in rows
            for source, caption, weight in zip(row["sources"], row["captions"], row["weights"], strict=True)
        ]
        lost = _lost(_given(context, address, pairs, captions), landed, dropped)
        spots = tuple((row["file"], row["row"]) for row in rows)
        sets.append(TracedTrainingSet("/".join(name), address, time_text(started), is_latest, spots, (*landed, *lost)))
    return sets


def _lost(given: Iterator[_Key], landed: list[TracedLanding], dropped: dict[_Key, str]) -> list[TracedLanding]:
    """The captions that were left out, once per occurrence, and why."""
    left = Counter((each.source, each.caption) for each in landed)
    lost = []
    for key in given:
        if left[key] > 0:
            left[key] -= 1
        elif key in dropped:
            lost.append(TracedLanding(*key, None, f"dropped: {dropped[key]}"))
        elif key in left:
            lost.append(TracedLanding(*key, None, "the same caption of the same source is there already"))
        else:
            lost.append(TracedLanding(*key, None, "left out, and no reason was recorded"))
    return lost


def _given(
    context: TraceContext, training_set: str, pairs: list[TracedPair], captions: list[TracedCaption]
) -> Iterator[_Key]:
    """The merge's input for the image: the raw captions and the sheared ones of the set's own inputs."""
    inputs = {
        address
        for (address,) in context.catalog.execute(
            "with direct as (select input_address as address from inputs where address = ?)"
            " select address from direct union select input_address from inputs join direct using (address)"
            " where address like 'sheared_captions/%'",
            [training_set],
        ).fetchall()
    }
    yield from ((RAW_SOURCE, pair.caption) for pair in pairs if pair.caption and pair.address in inputs)
    for caption in captions:
        yield from ((caption.captioner, shear.kept) for shear in caption.sheared if shear.address in inputs)


def _files(context: TraceContext, address: str, what: str) -> list[Path]:
    """The files of a training set with this prefix, in the manifest's order."""
    rows = context.catalog.execute(
        "select name from files where address = ? and starts_with(name, ?) order by name", [address, f"{what}-"]
    ).fetchall()
    return [context.store.file(address, name) for (name,) in rows]


def _dropped(context: TraceContext, files: list[Path]) -> dict[_Key, str]:
    """By source and caption, the filter that dropped it."""
    if not files:
        return {}
    for file in files:
        read_metadata(file)  # the note names one that is gone or damaged
    rows: list[tuple[Any, ...]] = context.catalog.execute(
        "select source, caption, reason from read_parquet(?) where image_id = ?",
        [[str(file) for file in files], context.image_id],
    ).fetchall()
    return {(source, caption): reason for source, caption, reason in rows}
