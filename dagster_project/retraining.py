"""Which recipes are retrained, and why: shared by the schedule and the sensor of retraining."""

from collections.abc import Iterator

import dagster as dg

from caploom.config.factory import Factory
from caploom.questions.growth import Growth, training_set_growth
from dagster_project.tags import automatic_tags, recipe_tags


def growths(factory: Factory) -> Iterator[Growth]:
    """The growth of the training set of each recipe that is retrained automatically, where there is one."""
    chosen = factory.config.automation_settings.retrain.recipes
    for recipe in factory.config.expanded_recipes():
        if recipe.is_trained and (chosen == "all" or recipe.name in chosen):
            growth = training_set_growth(factory, recipe)
            if growth is not None:
                yield growth


def retraining_request(factory: Factory, growth: Growth) -> dg.RunRequest:
    """The run that trains a recipe on its present training set; requested twice, it is launched once."""
    return dg.RunRequest(
        run_key=f"{growth.recipe} on {growth.training_set}",
        partition_key=growth.recipe,
        tags={**recipe_tags(factory.config.recipe(growth.recipe)), **automatic_tags(why(growth))},
    )


def why(growth: Growth) -> str:
    """A training set's growth in words."""
    if growth.trained_images is None:
        return f"{growth.recipe} has {growth.images:,} images and was never trained"
    return (
        f"{growth.recipe} has {growth.images:,} images, {growth.percent:+.1f} % on the "
        f"{growth.trained_images:,} it was trained on"
    )
