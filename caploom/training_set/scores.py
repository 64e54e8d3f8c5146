"""Image-text scores, computed once for each (image, caption, scorer) and stored under `scores/<scorer>/`.

They belong to no recipe: another fraction, another shear with the same caption, or a second recipe reuses them.
"""

import hashlib
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from caploom.common.hashing import fingerprint
from caploom.common.progress import track
from caploom.storage.manifest import RowCount
from caploom.storage.records import SCORES
from caploom.storage.store import Draft, Plan, Store
from caploom.storage.tables import read_table, write_table
from caploom.training_set.filter_context import FilterContext, LoadScorer, Scan, Scorer
from caploom.training_set.filter_settings import ScoredStep
from caploom.training_set.scorer_identity import CODE_VERSION, scorer_identity

KIND = "scores"
_PART = 100_000  # captions that are scored before they are stored
_ODD = np.uint64(0x9E3779B97F4A7C15)


class Scores:
    """Scores by (image, caption): 12 bytes each in memory."""

    def __init__(self, keys: np.ndarray, scores: np.ndarray) -> None:
        self._keys, first = np.unique(keys, return_index=True)
        self._scores = scores[first].astype(np.float32)

    def look_up(self, captions: pa.Table) -> np.ndarray:
        """float32 of shape (captions,); NaN where there is no score."""
        keys = caption_keys(captions)
        if len(self._keys) == 0:
            return np.full(len(keys), np.nan, np.float32)
        position = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[position] == keys, self._scores[position], np.float32(np.nan)).astype(np.float32)

    def lacking(self, captions: pa.Table) -> int:
        """The number of captions without a score."""
        return int(np.isnan(self.look_up(captions)).sum())


def caption_keys(captions: pa.Table) -> np.ndarray:
    """uint64 of shape (captions,): a key for each image with this caption, the same on every machine."""
    return np.asarray(_hashes(captions["image_id"]) * _ODD ^ _hashes(captions["caption"]))


def scores_of(scorer: ScoredStep, scan: Scan, context: FilterContext) -> Scores:
    """The scores of all captions of `scan`; missing ones are computed and stored.

    An unreadable image has no score now and is retried next time. Raises `TrainingError` or `StoreError` when the model
    cannot be loaded.
    """
    store, load = context.store, context.load_scorer
    identity = scorer_identity(scorer.model, scorer.pretrained)
    name = fingerprint(identity)
    known = _kept(store, name)
    todo = sum(scan.each(known.lacking))
    if todo == 0:
        return known
    score = partial(_score, scorer=scorer, known=known, store=store, load=load, name=name, identity=identity)
    done = 0
    # A separate bar: the stage's will count the merged captions.
    with track(f"scores by {scorer.model}", "captions") as bar:
        progress = bar.part()
        try:
            for scored in scan.each(score, loads_model=True):
                done += scored
                progress(done, todo)
        finally:
            _model.cache_clear()
    return _kept(store, name)


def _score(
    captions: pa.Table,
    *,
    scorer: ScoredStep,
    known: Scores,
    store: Store,
    load: LoadScorer,
    name: str,
    identity: dict[str, Any],
) -> int:
    """Score and store a bucket's captions without a score; returns their number."""
    missing = captions.filter(pa.array(np.isnan(known.look_up(captions))))
    for start in range(0, len(missing), _PART):
        _keep(store, name, identity, missing.slice(start, _PART), _model(load, scorer))
    return len(missing)


@lru_cache(maxsize=1)
def _model(load: LoadScorer, scorer: ScoredStep) -> Scorer:
    return load(scorer)


def _kept(store: Store, name: str) -> Scores:
    tables = [read_table(artifact.file("scores.parquet")) for artifact in store.list(KIND, name)]
    table = pa.concat_tables([SCORES.empty_table(), *tables])
    return Scores(table["key"].to_numpy(), table["score"].to_numpy())


def _keep(store: Store, name: str, identity: dict[str, Any], captions: pa.Table, model: Scorer) -> None:
    """Score some captions and store the scores as one artifact, so that a killed run loses no more than one."""
    scores = model.score(captions)
    keys = caption_keys(captions)
    table = pa.table({"image_id": captions["image_id"], "key": keys, "score": scores})
    table = table.filter(pa.array(~np.isnan(scores)))
    if len(table) == 0:
        return
    scored = hashlib.sha256(table["key"].to_numpy().tobytes()).hexdigest()
    plan = Plan(
        kind=KIND,
        name=(name,),
        code_version=CODE_VERSION,
        configuration={"scorer": identity, "captions": scored},
    )

    def build(draft: Draft) -> None:
        write_table(table.cast(SCORES), draft.folder / "scores.parquet")
        draft.device = str(model.device)
        draft.rows = RowCount(unit="captions", rows_in=len(table), rows_out=len(table), rows_failed=0)

    store.make(plan, build)


def _hashes(column: pa.ChunkedArray) -> np.ndarray:
    """uint64 of shape (texts,): the first 64 bits of each text's BLAKE2b."""
    if len(column) == 0:
        return np.zeros(0, np.uint64)
    encoded = column.cast(pa.string()).dictionary_encode().unify_dictionaries()
    texts = encoded.chunk(0).dictionary.to_pylist()
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    indices = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    return np.asarray(np.frombuffer(b"".join(digests), "<u8")[indices])
