"""Makes a part of the scores again: by merging a training set that had it scored, beside all other parts."""

from collections.abc import Mapping
from typing import Any

from caploom.common.progress import Progress
from caploom.config.factory import Factory
from caploom.config.factory_config import FactoryConfig
from caploom.reproduce.errors import NotReproducibleError
from caploom.reproduce.fresh_store import ancestors_of, link_into, name_of
from caploom.reproduce.rebuild import rebuilt_config
from caploom.reproduce.times import CLOCK, ended, started
from caploom.storage.manifest import Manifest
from caploom.storage.store import Store


def score_again(present: FactoryConfig, recorded: Manifest, original: Store, fresh: Store, progress: Progress) -> None:
    """Score a part's captions; raises `NotReproducibleError` when no training set needed them."""
    from caploom.stages.training_set import merge_training_set

    # The merge that scored them ended after the scores were begun, and the first such is it.
    scorer = recorded.configuration["scorer"]
    users = (each.manifest for each in original.list("training_set") if _uses(each.manifest.configuration, scorer))
    after = [each for each in users if ended(each) + CLOCK >= started(recorded)]
    if not after:
        raise NotReproducibleError(f"{recorded.address}: no training set is there for which it was scored.")
    merged = min(after, key=ended)
    ancestors, _ = ancestors_of(original, merged)
    parts = original.list("scores", name_of(recorded))
    link_into(fresh, [*ancestors.values(), *(each for each in parts if each.manifest.address != recorded.address)])
    config = rebuilt_config(present, merged, ancestors, fresh.root / "pictures")
    merge_training_set(Factory(config, fresh), config.expanded_recipes()[0], progress)


def _uses(configuration: Mapping[str, Any], scorer: Any) -> bool:
    return any(step.get("scorer") == scorer for step in configuration["filters"])
