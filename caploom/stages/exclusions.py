"""Which images a recipe's training set leaves out because they are duplicates, or in an evaluation set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from caploom.common.hashing import content_version
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.stages.duplicates import known_leakage, leakage, near_duplicates, near_duplicates_plan
from caploom.storage.store import Artifact
from caploom.storage.tables import read_table
from caploom.training_set.duplicate_settings import DuplicateSettings

IN_EVALUATION_SET = "in_evaluation_set"
NEAR_EVALUATION_IMAGE = "near_evaluation_image"
NEAR_DUPLICATE_IMAGE = "near_duplicate_image"


@dataclass(frozen=True)
class Exclusions:
    """What was found, and what is left out of it.

    Attributes:
        reasons: by the identity of an image that is left out, why.
        found: images by reason, left out or only marked.
        examples: a few of those found: reason, image and the other image's identity.
        artifacts: the addresses of what says all of them.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    found: Mapping[str, int] = field(default_factory=dict)
    examples: Sequence[tuple[str, str, str]] = ()
    artifacts: Sequence[str] = ()

    def identity(self) -> dict[str, Any]:
        """What of it decides the training set: nothing, where nothing is left out."""
        if not self.reasons:
            return {}
        version = content_version(f"{image}\t{reason}" for image, reason in sorted(self.reasons.items()))
        return {"excluded_images": {"count": len(self.reasons), "version": version}}

    def summary(self) -> dict[str, Any]:
        """The figures of the manifest."""
        return {
            "found": dict(self.found),
            "excluded": dict(Counter(self.reasons.values())),
            "examples": [list(each) for each in self.examples],
            "artifacts": list(self.artifacts),
        }

    def drops(self, captions: pa.Table) -> Mapping[str, np.ndarray]:
        """The rows of a bucket whose image is left out, as a filter says it."""
        images = captions["image_id"].to_pylist()
        why = np.array([self.reasons.get(image, "") for image in images], object)
        return {reason: why == reason for reason in set(self.reasons.values())}


_EXAMPLES = 8


def exclusions(factory: Factory, recipe: Recipe, pairs: Sequence[Artifact]) -> Exclusions:
    """What the YAML's `duplicates` says of a recipe's images; makes what it needs to know, unless that is made."""
    settings = factory.config.duplicates
    names = recipe.evaluation_sets if settings.leakage != "off" else ()
    near = near_duplicates(factory, pairs) if settings.near != "off" else None
    return _exclusions(settings, [leakage(factory, name, pairs) for name in names], near)


def known_exclusions(factory: Factory, recipe: Recipe, pairs: Sequence[Artifact]) -> Exclusions:
    """The same of what is known already: nothing is made, and what is not known counts as not found."""
    settings = factory.config.duplicates
    names = recipe.evaluation_sets if settings.leakage != "off" else ()
    leaks = [known_leakage(factory, name, pairs) for name in names]
    near = factory.store.find(near_duplicates_plan(factory, pairs)) if settings.near != "off" else None
    return _exclusions(settings, [each for each in leaks if each is not None], near)


def _exclusions(settings: DuplicateSettings, leaks: Sequence[Artifact], near: Artifact | None) -> Exclusions:
    found: dict[str, tuple[str, str]] = {}  # image -> reason, the other image; the first reason counts
    for artifact in leaks:
        for row in read_table(artifact.file("images.parquet")).to_pylist():
            exact = row["image_id"] == row["evaluation_image_id"]
            reason = IN_EVALUATION_SET if exact else NEAR_EVALUATION_IMAGE
            if found.get(row["image_id"], ("",))[0] != IN_EVALUATION_SET:
                found[row["image_id"]] = (reason, row["evaluation_image_id"])
    leaked = set(found)
    if near is not None:
        for row in read_table(near.file("images.parquet")).to_pylist():
            found.setdefault(row["image_id"], (NEAR_DUPLICATE_IMAGE, row["duplicate_of"]))
    left_out = {
        image: reason
        for image, (reason, _) in found.items()
        if (settings.leakage if image in leaked else settings.near) == "exclude"
    }
    return Exclusions(
        reasons=left_out,
        found=Counter(reason for reason, _ in found.values()),
        examples=[(reason, image, other) for image, (reason, other) in list(found.items())[:_EXAMPLES]],
        artifacts=[each.manifest.address for each in (*leaks, *([near] if near is not None else []))],
    )
