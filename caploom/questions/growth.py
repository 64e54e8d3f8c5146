"""The growth of a recipe's training set since its newest checkpoint was trained."""

from dataclasses import dataclass

from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.stages.graph import Graph, graph_of
from caploom.stages.stage import Ref
from caploom.storage.store import Artifact


@dataclass(frozen=True)
class Growth:
    """A recipe's present training set, compared with the one that its newest checkpoint was trained on.

    Attributes:
        recipe: its name.
        training_set: the data version of the present training set.
        images: images in it.
        trained_images: images that the newest checkpoint of the recipe's present trainer was trained on; None without
            a checkpoint.
        trained_on: the data version of that training set.
    """

    recipe: str
    training_set: str
    images: int
    trained_images: int | None
    trained_on: str | None

    @property
    def is_new(self) -> bool:
        """Whether the present training set differs from the one that was trained on."""
        return self.training_set != self.trained_on

    @property
    def percent(self) -> float:
        """Additional images in percent of those that were trained on; infinite where nothing was trained yet."""
        if not self.trained_images:
            return float("inf")
        return 100 * (self.images - self.trained_images) / self.trained_images


def training_set_growth(factory: Factory | Graph, recipe: Recipe) -> Growth | None:
    """The growth of a recipe's training set; None while the present one does not exist.

    Example:
        >>> growth = training_set_growth(factory, factory.config.recipe("sheared"))
        >>> growth.images, growth.trained_images
        (14, 14)
    """
    graph = graph_of(factory, recipe)
    present = graph.find(Ref("training_set", (recipe.name,)))
    if present is None:
        return None
    trained = _last_trained_on(graph, recipe)
    return Growth(
        recipe=recipe.name,
        training_set=present.data_version,
        images=present.manifest.summary["images"],
        trained_images=trained.manifest.summary["images"] if trained else None,
        trained_on=trained.data_version if trained else None,
    )


def _last_trained_on(graph: Graph, recipe: Recipe) -> Artifact | None:
    """The training set of the newest checkpoint that the recipe's present trainer made."""
    stage = graph.stage("checkpoint")
    settings = stage.settings(graph, (recipe.name,))
    checkpoints = [
        artifact
        for artifact in graph.view.artifacts(stage.kind, recipe.name)
        if artifact.manifest.configuration == settings and artifact.manifest.code_version == stage.code_version
    ]
    for checkpoint in sorted(checkpoints, key=lambda each: each.manifest.started, reverse=True):
        training_set = graph.view.read(checkpoint.manifest.inputs[0].address)
        if training_set is not None:
            return training_set
    return None
