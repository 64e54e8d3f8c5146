"""Only the demo can measure it: how much of a picture each captioner names, and how much of it is true."""

from dataclasses import dataclass

from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.demo.truth import CaptionTruth, read_truth, score
from caploom.readers.picture_book import PictureBookReader
from caploom.stages.captions import read_captions
from caploom.stages.graph import Graph
from caploom.stages.sheared import sheared_texts
from caploom.stages.stage import Ref


@dataclass(frozen=True)
class CaptionerTruth:
    """A captioner's whole texts and its sheared ones, compared with the pictures' content."""

    captioner: str
    shear: str
    whole: CaptionTruth
    sheared: CaptionTruth


def captioner_truths(factory: Factory) -> list[CaptionerTruth]:
    """Each captioner against the truth, for the shears that recipes use; empty for any other source."""
    reader = factory.config.pairs
    if not isinstance(reader, PictureBookReader):
        return []
    truth = read_truth(reader.folder / "truth.parquet")
    found = []
    for captioner in factory.config.captioners:
        whole = {image: text for image, text in _texts(factory, captioner).items() if image in truth}  # not the inbox's
        if not whole:
            continue
        for shear in _shears_of(factory.config.expanded_recipes(), captioner):
            kept = sheared_texts(factory, captioner, factory.config.shear_steps(shear))
            sheared = {image: text for image, text in kept.items() if image in truth}
            found.append(CaptionerTruth(captioner, shear, score(whole, truth), score(sheared, truth)))
    return found


def _texts(factory: Factory, captioner: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    graph = Graph(factory)
    for artifact in graph.existing(Ref("captions", (captioner, shard)) for shard in graph.shards):
        table = read_captions(artifact)
        texts.update(zip(table.column("image_id").to_pylist(), table.column("text").to_pylist(), strict=True))
    return texts


def _shears_of(recipes: list[Recipe], captioner: str) -> list[str]:
    shears = dict.fromkeys(recipe.shear for recipe in recipes if captioner in recipe.captioners)
    return [shear for shear in shears if shear != "none"]
