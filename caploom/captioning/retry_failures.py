"""Redoing a shard's failures alone, each image as often as its captioner allows."""

from dataclasses import dataclass

from caploom.captioning.caption_shard import Load, caption_shard, captions_plan, read_failures
from caploom.captioning.retries import ask_again
from caploom.factory import Factory
from caploom.progress import Progress
from caploom.store import Artifact


@dataclass(frozen=True)
class Retried:
    """What came of redoing a shard's failures."""

    artifact: Artifact
    tried: int
    captioned: int
    given_up: int


def retry_failures(
    factory: Factory, captioner: str, shard: str, load: Load, progress: Progress | None = None
) -> Retried | None:
    """Caption again the images of a finished shard that failed fewer than `max_attempts` times, and only those.

    Their new captions and what still fails make a new artifact of the shard; the old one stays. None when the shard is
    not captioned yet or has nothing to redo. Raises what `caption_shard` raises.
    """
    plan = captions_plan(factory, captioner, shard)
    artifact = factory.store.find(plan)
    if artifact is None:
        return None
    limit = factory.config.captioners[captioner].max_attempts
    failures = read_failures(artifact)
    tried = {row["key"] for row in failures if row["attempt"] < limit}
    if not tried:
        return None
    ask_again(factory.store, captioner, plan.configuration["captioner_fingerprint"], shard)
    made = caption_shard(factory, captioner, shard, load, progress)
    still = read_failures(made)
    return Retried(
        artifact=made,
        tried=len(tried),
        captioned=len(tried - {row["key"] for row in still}),
        given_up=sum(row["attempt"] >= limit for row in still),
    )
