"""How often retries of a shard's failures were requested: the only input of captions outside the configuration."""

import json
import os

from caploom.captioning.ledger import KIND
from caploom.storage.store import Store


def retries_asked(store: Store, captioner: str, fingerprint: str, shard: str, *, listed: bool = False) -> int:
    """The number of requests so far; 0 for almost every shard. `listed`: the store's captions were refreshed before."""
    name = f"{KIND}/{captioner}/{fingerprint}/{shard}/retries.json"
    if listed and not os.path.exists(f"{store.root}/{name}"):  # noqa: PTH110 - asked once a shard and captioner
        return 0
    if not listed:
        store.pull_shared(name)
    path = store.path(name)
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["retries"])
    except FileNotFoundError:
        return 0


def request_retry(store: Store, captioner: str, fingerprint: str, shard: str) -> None:
    """Request another retry: the shard's captions become a new artifact, from the ledger and the retried failures."""
    path = store.path(f"{KIND}/{captioner}/{fingerprint}/{shard}/retries.json")
    retries = retries_asked(store, captioner, fingerprint, shard) + 1
    store.put_shared(path, json.dumps({"retries": retries}).encode())
