"""Which images a recipe's training set leaves out, as far as that is known: nothing is made to know it."""

from collections import Counter

from caploom.config.recipes import Recipe
from caploom.errors import CaploomError
from caploom.stages.graph import Graph
from caploom.stages.stage import Ref
from caploom.storage.store import Artifact
from caploom.storage.tables import read_table
from caploom.training_set.duplicate_settings import DuplicateSettings
from caploom.training_set.exclusions import IN_EVALUATION_SET, NEAR_DUPLICATE_IMAGE, NEAR_EVALUATION_IMAGE, Exclusions

_EXAMPLES = 8


def exclusion_refs(graph: Graph, recipe: Recipe) -> list[Ref]:
    """The artifacts that say what the YAML's `duplicates` leaves out of a recipe's images, leaks first."""
    settings = graph.config.duplicates
    if not graph.shards:
        return []
    leaks = [Ref("leakage", (name,)) for name in recipe.evaluation_sets] if settings.leakage != "off" else []
    return [*leaks, *([Ref("near_duplicates")] if settings.near != "off" else [])]


def known_exclusions(graph: Graph, recipe: Recipe) -> Exclusions:
    """What is left out; what is not known yet counts as not found, so that a new evaluation set retrains nothing."""
    refs = exclusion_refs(graph, recipe)

    def find() -> Exclusions:
        known = {ref: _find(graph, ref) for ref in refs}
        leaks = (found for ref, found in known.items() if ref.kind == "leakage" and found is not None)
        return _exclusions(graph.config.duplicates, list(leaks), known.get(Ref("near_duplicates")))

    return graph.derived(Ref("exclusions", tuple(map(str, refs))), find)


def _find(graph: Graph, ref: Ref) -> Artifact | None:
    try:
        return graph.find(ref)
    except CaploomError:  # the evaluation set cannot be read: who measures on it is told
        return None


def _exclusions(settings: DuplicateSettings, leaks: list[Artifact], near: Artifact | None) -> Exclusions:
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
