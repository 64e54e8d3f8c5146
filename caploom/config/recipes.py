"""Recipes: the arms of an ablation, as a YAML writes them and with every name resolved."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from caploom.common.json_schema import Shorthand
from caploom.common.settings import Settings
from caploom.shearing.settings import ShearStep
from caploom.training.settings import TrainerSettings
from caploom.training_set.filter_settings import FilterStep
from caploom.training_set.settings import MixSettings


def _differ(seeds: list[int]) -> list[int]:
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"{seeds} contains a seed twice: write each seed once")
    return seeds


Seeds = Annotated[list[int], Field(min_length=1), AfterValidator(_differ)]
"""Seeds of the YAML, each one once."""


class FinetuneSettings(Settings):
    """A recipe's second stage: its checkpoint is trained further, on the captions of a target set."""

    target_set: str = Field(description="Name of the target set, such as COCO's or Flickr30K's training images.")
    trainer: str = Field(description="Name of a trainer of the same model; its `pretrained` is not used.")


NO_TRAINER = "none"
"""As a recipe's `trainer`: it ends at its training set."""


class RecipeSettings(Settings):
    """One arm of an ablation: which captions, how they are sheared and mixed, how CLIP is trained on them."""

    captioners: Literal["all"] | list[str] = Field(
        description="Names of captioners whose captions join the raw ones; `all` is every captioner, `[]` is raw only."
    )
    shear: Annotated[str, Shorthand(of=list[ShearStep])] = Field(
        default="none", description="Name of a shear, or its rules as a list; `none` keeps the captions whole."
    )
    mix: MixSettings = Field(
        default_factory=MixSettings, description="How training draws among an image's captions; `uniform` by default."
    )
    filters: list[FilterStep] = Field(default=[], description="Filters of captions before the mix, in this order.")
    trainer: str | None = Field(
        default=None,
        description="Name of a trainer; may be left out when there is only one. With `none`, or where the YAML has no "
        "trainers, the recipe ends at its training set.",
    )
    evaluation_sets: Literal["all"] | list[str] = Field(default="all", description="Names of the evaluation sets.")
    finetune: FinetuneSettings | None = Field(
        default=None, description="A second stage on a target set; both stages are measured."
    )
    seeds: Seeds | None = Field(default=None, description="Instead of the YAML's own seeds.")


class Finetuning(Settings):
    """A recipe's second stage with its names resolved."""

    target_set: str
    trainer: TrainerSettings


class Recipe(Settings):
    """A recipe with every name resolved, for one seed: the value of a `recipe` partition."""

    name: str
    base: str = Field(description="The recipe's name in the YAML; arms that differ only in their seed share it.")
    seed: int
    captioners: tuple[str, ...]
    shear: str
    mix: MixSettings
    filters: tuple[FilterStep, ...] = ()
    trainer: TrainerSettings | None
    evaluation_sets: tuple[str, ...]
    finetune: Finetuning | None = None

    @property
    def is_trained(self) -> bool:
        """Whether a model is trained on its training set."""
        return self.trainer is not None

    @property
    def is_measured(self) -> bool:
        """Whether its model is measured on some evaluation set."""
        return self.is_trained and bool(self.evaluation_sets)
