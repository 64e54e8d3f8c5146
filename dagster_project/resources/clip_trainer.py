"""The GPU resource that trains and measures CLIP models."""

import dagster as dg

from caploom.config import Recipe
from caploom.evaluation.measure import measure_recipe
from caploom.factory import Factory
from caploom.progress import Progress, StageBar
from caploom.store import Artifact
from caploom.training.checkpoint import train_recipe


class ClipTrainer(dg.ConfigurableResource):
    """Trains in this process; the one seam through which another way of launching the trainer comes in."""

    def train(self, factory: Factory, recipe: Recipe, progress: Progress) -> Artifact:
        """The recipe's checkpoint; see `train_recipe`."""
        return train_recipe(factory, recipe, progress)

    def measure(self, factory: Factory, recipe: Recipe, bar: StageBar) -> Artifact:
        """The recipe's retrieval metrics; see `measure_recipe`."""
        return measure_recipe(factory, recipe, bar)
