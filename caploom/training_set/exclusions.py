"""Images that a training set leaves out because they are duplicates, or in an evaluation set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from caploom.common.hashing import content_version

IN_EVALUATION_SET = "in_evaluation_set"
NEAR_EVALUATION_IMAGE = "near_evaluation_image"
NEAR_DUPLICATE_IMAGE = "near_duplicate_image"


@dataclass(frozen=True)
class Exclusions:
    """The duplicates that were found, and which of them are left out.

    Attributes:
        reasons: for the identity of each image that is left out, why.
        found: images by reason, left out or only marked.
        examples: a few of those found: reason, image and the other image's identity.
        artifacts: the addresses of the artifacts that list all of them.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    found: Mapping[str, int] = field(default_factory=dict)
    examples: Sequence[tuple[str, str, str]] = ()
    artifacts: Sequence[str] = ()

    def identity(self) -> dict[str, Any]:
        """The part that decides the training set: nothing, where nothing is left out."""
        if not self.reasons:
            return {}
        version = content_version(f"{image}\t{reason}" for image, reason in sorted(self.reasons.items()))
        return {"excluded_images": {"count": len(self.reasons), "version": version}}

    def summary(self) -> dict[str, Any]:
        """The figures of the manifest."""
        return {
            "found": dict(self.found),
            "excluded": dict(Counter(self.reasons.values())),
            "examples": [list(example) for example in self.examples],
            "artifacts": list(self.artifacts),
        }

    def drops(self, captions: pa.Table) -> Mapping[str, np.ndarray]:
        """The rows of a bucket whose image is left out, in the form of a filter's result."""
        images = captions["image_id"].to_pylist()
        why = np.array([self.reasons.get(image, "") for image in images], object)
        return {reason: why == reason for reason in set(self.reasons.values())}
