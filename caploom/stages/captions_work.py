"""A shard that a captioner is captioning: what is missing, the rows of what it says, and the tables in the end."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from caploom.captioning.backend import Captioned, Failed, ImageRef
from caploom.captioning.ledger import KIND, Ledger
from caploom.common.hashing import content_version
from caploom.config.factory import Factory
from caploom.storage.records import CAPTIONS, pair_identity
from caploom.storage.store import Draft, Plan, Store
from caploom.storage.tables import count_rows, failure, write_failures, write_table


@dataclass(frozen=True)
class LedgerRows:
    """Makes rows of the ledger and of failures tables, wherever the captioner runs.

    Attributes:
        captioner: its name.
        fingerprint: its fingerprint.
        attempts: by image, how often it failed before.
        pairs: by image, the identity of the pair whose raw caption the prompt quotes; empty where it quotes none.
    """

    captioner: str
    fingerprint: str
    attempts: Mapping[str, int] = field(default_factory=dict)
    pairs: Mapping[str, str] = field(default_factory=dict)

    def of(self, item: Captioned) -> dict[str, Any]:
        """The row (schema CAPTIONS) of a caption."""
        return {
            "image_id": item.ref.image_id,
            "captioner": self.captioner,
            "fingerprint": self.fingerprint,
            "text": item.generation.text,
            "tokens": item.generation.tokens,
            "finish_reason": item.generation.finish_reason,
            "seconds": item.seconds,
            "attempt": self._attempt(item.ref),
            "pair_id": self.pairs.get(item.ref.image_id),
        }

    def failure(self, item: Failed) -> dict[str, Any]:
        """The row (schema FAILURES) of an image without a caption."""
        return failure(KIND, item.ref.image_id, item.ref.image, item.reason, item.detail, self._attempt(item.ref))

    def _attempt(self, ref: ImageRef) -> int:
        return self.attempts.get(ref.image_id, 0) + 1


@dataclass(frozen=True)
class Outcome:
    """What came of captioning what was missing; the captions themselves are in the ledger.

    Attributes:
        asked: images that the captioner was asked about.
        failures: rows of those that got no caption.
        seconds: that the model spent.
        wall: seconds that it all took; of several workers, the sum.
        facts: what the captioner says of itself.
        device: that it ran on; None where nothing was missing.
    """

    asked: int = 0
    failures: Sequence[dict[str, Any]] = ()
    seconds: float = 0.0
    wall: float = 0.0
    facts: Mapping[str, Any] | None = None
    device: str | None = None


class ShardWork:
    """One shard's captions, from the ledger and from the captioner.

    Attributes:
        images: all of the shard.
        missing: those to caption: the ledger has no caption of them, and they have not failed too often.
        given_up: by image, the rows of those that have, and of those that have no raw caption for the prompt to quote.
    """

    def __init__(
        self,
        factory: Factory,
        captioner: str,
        plan: Plan,
        ledger: Ledger,
        images: Sequence[ImageRef],
        earlier: Mapping[str, dict[str, Any]],
    ) -> None:
        settings = factory.config.captioners[captioner]
        self.store: Store = factory.store
        self.captioner = captioner
        self.shard: str = plan.configuration["shard"]
        self.fingerprint: str = plan.configuration["captioner_fingerprint"]
        self.ledger = ledger
        self.images = images
        self._plan = plan
        self._ids = [ref.image_id for ref in images]
        self._place = {image_id: number for number, image_id in enumerate(self._ids)}
        pairs = [pair_identity(ref.image_id, ref.raw_caption) for ref in images] if settings.needs_raw_caption else None
        self._pair_ids = pairs
        self.given_up = {key: row for key, row in earlier.items() if row["attempt"] >= settings.max_attempts}
        if settings.needs_raw_caption:
            unasked = [ref for ref in images if not ref.raw_caption]
            self.given_up |= {ref.image_id: _nothing_to_quote(ref, captioner, settings.max_attempts) for ref in unasked}
        missing = set(ledger.missing(self._ids, pairs)) - self.given_up.keys()
        self.missing = [ref for ref in images if ref.image_id in missing]
        self.rows = LedgerRows(
            captioner,
            self.fingerprint,
            {key: row["attempt"] for key, row in earlier.items()},
            dict(zip(self._ids, pairs, strict=True)) if pairs else {},
        )

    def captions(self) -> pa.Table:
        """What the ledger has of the images (schema CAPTIONS), in their order."""
        return _in_order(self.ledger.find(self._ids, self._pair_ids), self._place)

    def write(self, draft: Draft, outcome: Outcome) -> None:
        """Write the shard's tables: `captions.parquet` (schema CAPTIONS) and `failures.parquet`."""
        # In the images' order, whichever worker was done first: the same results are the same data version.
        failures = sorted([*self.given_up.values(), *outcome.failures], key=lambda row: self._place[row["key"]])
        table = self.captions()
        write_table(table, draft.folder / "captions.parquet")
        write_failures(failures, draft.folder)
        if "seed" in self._plan.configuration["settings"]:
            draft.seeds = {"sampling": self._plan.configuration["settings"]["seed"]}
        draft.rows = count_rows("images", len(self.images), len(table), failures)
        said = zip(table.column("image_id").to_pylist(), table.column("text").to_pylist(), strict=True)
        draft.data_version = content_version(
            [*(f"{image}\t{text}" for image, text in said), *(row["key"] for row in failures)]
        )
        draft.summary = _summary(table, outcome)
        if outcome.device is not None:
            draft.device = outcome.device
            draft.summary["captioner_facts"] = dict(outcome.facts or {})


def _nothing_to_quote(ref: ImageRef, captioner: str, attempt: int) -> dict[str, Any]:
    detail = (
        f"{ref.image}: it came without a raw caption, and the prompt of {captioner} quotes one; caption it with a "
        "captioner whose prompt does not."
    )
    return failure(KIND, ref.image_id, ref.image, "no_raw_caption", detail, attempt)


def _in_order(table: pa.Table, place: Mapping[str, int]) -> pa.Table:
    ids = table.column("image_id").to_pylist()
    order = sorted(range(len(ids)), key=lambda row: place[ids[row]])
    return table.take(order) if order else CAPTIONS.empty_table()


def _summary(table: pa.Table, outcome: Outcome) -> dict[str, Any]:
    tokens = [count for count in table.column("tokens").to_pylist() if count is not None]
    reasons = table.column("finish_reason").to_pylist()
    return {
        "captions": len(table),
        "generated": outcome.asked,
        "generation_seconds": round(outcome.seconds, 3),  # of the model alone
        "images_per_second": round(outcome.asked / outcome.wall, 1) if outcome.asked and outcome.wall else None,
        "mean_tokens": round(statistics.fmean(tokens), 2) if tokens else None,
        "share_at_token_cap": round(reasons.count("length") / len(reasons), 4) if reasons else None,
        "share_stopped_by_shear": round(reasons.count("shear") / len(reasons), 4) if reasons else None,
    }
