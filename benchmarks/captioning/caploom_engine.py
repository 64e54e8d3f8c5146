"""Caploom's side: the backend as the captions stage uses it, its captions kept in a ledger as they come."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.captioning.inputs import BATCH_SIZE, PHOTOS, captioner_settings, image_refs
from benchmarks.child import Done, Job
from caploom.captioning.backend import Backend, Captioned, ImageRef, load_backend
from caploom.captioning.ledger import Ledger, LedgerWriter
from caploom.shearing.rules import first_sentence
from caploom.storage.opening import open_store
from caploom.storage.store import Store


def run(job: Job) -> Done:
    """Options: model, prompt, max_new_tokens. Gives each file's first sentence without its full stop."""
    refs = image_refs(job.folder / PHOTOS)
    settings = captioner_settings(job.options["model"], job.options["prompt"], job.options["max_new_tokens"])
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        backend = load_backend(settings, store)
        caption_into_ledger(backend, refs[:BATCH_SIZE], store, "warm-up")
        with job.measured():
            captioned = caption_into_ledger(backend, refs, store, "shard")
    return Done(len(refs), {"sentences": {item.ref.image: _sentence(item.generation.text) for item in captioned}})


def caption_into_ledger(backend: Backend, refs: Iterable[ImageRef], store: Store, shard: str) -> list[Captioned]:
    """Caption images, keep the captions in the store's ledger as the captions stage does, and return them."""
    captioned: list[Captioned] = []
    with LedgerWriter(Ledger(store, "captioner", "benchmark"), shard) as ledger:
        for chunk in backend.caption(refs):
            ledger.append([ledger_row(item) for item in chunk.captioned])
            captioned += chunk.captioned
    return captioned


def ledger_row(item: Captioned) -> dict[str, object]:
    """A caption as a row of the ledger (schema CAPTIONS)."""
    return {
        "image_id": item.ref.image_id,
        "captioner": "captioner",
        "fingerprint": "benchmark",
        "text": item.generation.text,
        "tokens": item.generation.tokens,
        "finish_reason": item.generation.finish_reason,
        "seconds": item.seconds,
        "attempt": 1,
    }


def _sentence(text: str) -> str:
    start, end = first_sentence(text)
    return text[start:end].rstrip(".").strip()
