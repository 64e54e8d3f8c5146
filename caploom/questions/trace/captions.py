"""The captions of an image: raw ones, every captioner's with every fingerprint, and the part that each shear kept."""

import glob
import json
from pathlib import Path

from caploom.common.text import time_text
from caploom.questions.trace.context import TraceContext
from caploom.questions.trace.records import TracedCaption, TracedFailure, TracedPair, TracedShear
from caploom.stages.words import captioner_in_words, steps_in_words

_CAPTION = ("captioner", "fingerprint", "text", "tokens", "finish_reason", "attempt")
"""What of a traced caption its row (schema CAPTIONS) has."""


def traced_pairs(context: TraceContext) -> list[TracedPair]:
    """The raw captions of the image in every version of the raw pairs that contains it, the oldest first."""
    rows = context.catalog.execute(
        "select address, name[-1], epoch(started), is_latest from manifests where address in"
        " (select address from images where word = ?::ubigint) and kind = 'raw_pairs' order by started, address",
        [int(context.image_id[:16], 16)],
    ).fetchall()
    return [
        TracedPair(
            **{key: row[key] for key in ("pair_id", "image", "path", "width", "height", "row")},
            caption=row["raw_caption"],
            shard=shard,
            address=address,
            started=time_text(started),
            is_latest=is_latest,
        )
        for address, shard, started, is_latest in rows
        for row in context.rows(address, "pairs.parquet")
    ]


def traced_captions(context: TraceContext, pairs: list[TracedPair]) -> tuple[list[TracedCaption], list[TracedFailure]]:
    """Captioners' captions of the image, the oldest first, and their failures on it."""
    made = context.made_from(
        list(dict.fromkeys(pair.address for pair in pairs)),
        "captions",
        "address, name, epoch(started), is_latest, configuration::text, rows_failed",
    )
    shears = _shears(context, [address for address, *_ in made])
    captions: list[TracedCaption] = []
    failures: list[TracedFailure] = []
    for address, name, started, is_latest, text, failed in made:
        settings = json.loads(text)["settings"]
        for row in context.rows(address, "captions.parquet"):
            sheared = tuple(_sheared(context, row["text"], *shear) for shear in shears if shear[1] == address)
            captions.append(
                TracedCaption(
                    **{key: row[key] for key in _CAPTION},
                    configured=captioner_in_words(settings),
                    prompt=settings.get("prompt"),
                    shard=name[-1],
                    address=address,
                    started=time_text(started),
                    is_latest=is_latest,
                    sheared=tuple(each for each in sheared if each is not None),
                )
            )
        for row in context.rows(address, "failures.parquet", "key") if failed else []:
            fields = {key: row[key] for key in ("stage", "reason", "detail", "attempt")}
            failures.append(TracedFailure(**fields, address=address))
    return captions + _under_way(context, pairs), failures


def _shears(context: TraceContext, captions: list[str]) -> list[tuple[str, str, str, float, bool]]:
    """The sheared tables of these captions: address, the captions' address, steps in words, started, newest."""
    rows = context.catalog.execute(
        "select m.address, i.input_address, m.configuration::text, epoch(m.started), m.is_latest"
        " from manifests m join inputs i using (address)"
        " where m.kind = 'sheared' and i.input_address in (select unnest(?::text[])) order by m.started, m.address",
        [captions],
    ).fetchall()
    return [
        (address, source, steps_in_words(json.loads(text)["steps"]), started, latest)
        for address, source, text, started, latest in rows
    ]


def _sheared(
    context: TraceContext, text: str, address: str, _: str, steps: str, started: float, is_latest: bool
) -> TracedShear | None:
    rows = context.rows(address, "sheared.parquet")
    if not rows:
        return None
    start, end = rows[0]["start"], rows[0]["end"]
    return TracedShear(
        steps=steps,
        before=text[:start],
        kept=text[start:end],
        after=text[end:],
        source_words=rows[0]["source_words"],
        words=rows[0]["words"],
        address=address,
        started=time_text(started),
        is_latest=is_latest,
    )


def _under_way(context: TraceContext, pairs: list[TracedPair]) -> list[TracedCaption]:
    """Captions of unfinished shards, which are in the ledger's parts."""
    found = []
    context.store.pull_shared("captions/*/*/pending/*/*.parquet")
    root = glob.escape(str(context.store.path("captions")))
    for shard in dict.fromkeys(pair.shard for pair in pairs):
        for file in glob.glob(f"{root}/*/*/pending/{glob.escape(shard)}/*.parquet"):  # noqa: PTH207
            for row in context.rows_of(Path(file)):
                found.append(
                    TracedCaption(
                        **{key: row[key] for key in _CAPTION},
                        configured="shard in progress",
                        prompt=None,
                        shard=shard,
                        address="",
                        started=time_text(Path(file).stat().st_mtime),
                        is_latest=True,
                    )
                )
    return found
