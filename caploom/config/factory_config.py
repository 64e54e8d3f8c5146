"""The factory's YAML as typed models: pairs, captioners, shears, mixes, trainers, evaluation sets and recipes.

The models are the reference of the YAML: every field is described. `load_config` is the only entry; a wrong key or
value is refused with the key's path, the value and what is allowed.
"""

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BeforeValidator, Field, PositiveInt, ValidationError, field_validator, model_validator

from caploom.captioning.settings import Captioner, PromptedSettings
from caploom.common.executors import Executor, LocalExecutor
from caploom.common.names import RAW_SOURCE
from caploom.common.settings import Name, Settings, check_known, describe_validation_error, nearest
from caploom.config.alerts import AlertSettings
from caploom.config.automation import AutomationSettings
from caploom.config.freshness import FreshnessSettings
from caploom.config.grid import GridParts, GridSettings, expand_grid
from caploom.config.inbox import InboxSettings
from caploom.config.mlflow import MlflowSettings
from caploom.config.recipes import NO_TRAINER, FinetuneSettings, Finetuning, Recipe, RecipeSettings, Seeds
from caploom.errors import ConfigError
from caploom.evaluation.settings import EvaluationSet
from caploom.readers.ingest_settings import IngestSettings
from caploom.readers.registry import Reader
from caploom.shearing.settings import ShearStep
from caploom.storage.paths import resolve_store
from caploom.training.settings import TrainerSettings
from caploom.training_set.duplicate_settings import DuplicateSettings
from caploom.training_set.merge_settings import MergeSettings

_CHECKOUT = Path(__file__).parents[2] / "configs" / "demo.yaml"
DEMO_CONFIG = _CHECKOUT if _CHECKOUT.exists() else Path(__file__).parents[1] / "demo" / "demo.yaml"
"""The demo's YAML: a checkout's, or the copy that an installed package has."""

WHOLE = "whole"
"""The recipe of a YAML without recipes and shears."""

Owner = Annotated[str, Field(pattern=r"^(team:[A-Za-z0-9 ._-]+|[^@\s]+@[^@\s.]+(\.[^@\s.]+)+)$")]


class FactoryConfig(Settings):
    """The whole factory, as written in one YAML file."""

    name: Name = Field(description="Names the factory in the UI and in its reports.")
    owners: list[Owner] = Field(
        default=[], description="Who is responsible for its assets, for the UI: e-mail addresses and `team:<name>`s."
    )
    store: Annotated[Path | str, BeforeValidator(resolve_store)] = Field(
        description="Folder of all artifacts, or URL (s3://bucket/prefix); a relative path is relative to the YAML's "
        "own folder."
    )
    pairs: Reader | None = Field(default=None, description="Where the raw pairs come from, in addition to an inbox.")
    inbox: InboxSettings | None = Field(default=None, description="Folders whose new images become shards.")
    ingest: IngestSettings = Field(
        default_factory=IngestSettings, description="Limits for incoming images and raw captions."
    )
    duplicates: DuplicateSettings = Field(
        default_factory=DuplicateSettings, description="Near-duplicates of other pictures, or of an evaluation set's."
    )
    automation: AutomationSettings | None = Field(
        default=None, description="What happens automatically; by default everything with an inbox, else nothing."
    )
    alerts: AlertSettings = Field(default_factory=AlertSettings, description="Where faults are reported.")
    freshness: FreshnessSettings = Field(default_factory=FreshnessSettings, description="How old artifacts may get.")
    shard_size: PositiveInt = Field(default=10_000, description="Rows of the source per shard, the unit of work.")
    executor: Executor = Field(
        default_factory=LocalExecutor,
        description="Where captioners, large merges and trainings of several nodes run: here, or on Ray.",
    )
    merge: MergeSettings = Field(default_factory=MergeSettings, description="How training sets are merged.")
    captioners: dict[Name, Captioner] = Field(default_factory=dict)
    shears: dict[Name, list[ShearStep]] = Field(default_factory=dict)
    trainers: dict[Name, TrainerSettings] = Field(
        default_factory=dict, description="What trains a recipe's model; without any, recipes end at training sets."
    )
    evaluation_sets: dict[Name, EvaluationSet] = Field(
        default_factory=dict, description="What models are measured on; without any, recipes end at checkpoints."
    )
    target_sets: dict[Name, Reader] = Field(
        default_factory=dict, description="Data that recipes are fine-tuned on: images with human captions."
    )
    training_json: bool = Field(
        default=True,
        description="Whether a training set is also written as the released code's JSON, for people to open.",
    )
    seeds: Seeds = Field(
        default=[0], description="Every recipe is trained once per seed; the first keeps the plain name."
    )
    recipes: dict[Name, RecipeSettings] = Field(
        default_factory=dict,
        description="The arms of an ablation. A YAML without recipes, grid and trainers has one for each shear, "
        "named after it and with all captioners; one named `whole` where it has no shears.",
    )
    grid: GridSettings | None = Field(
        default=None, description="Combines captioners, shears, mixes, filters and trainers; its arms join the recipes."
    )
    mlflow: MlflowSettings | None = Field(
        default=None, description="Where measured recipes are mirrored to, if anywhere."
    )

    @model_validator(mode="before")
    @classmethod
    def _a_recipe_s_own_shear_gets_a_name(cls, value: Any) -> Any:
        """`shear: [first_sentence]` in the recipe `r` is the shear `r.shear`."""
        recipes = value.get("recipes") if isinstance(value, dict) else None
        if not isinstance(recipes, dict):
            return value
        own = {
            f"{name}.shear": recipe["shear"]
            for name, recipe in recipes.items()
            if isinstance(recipe, dict) and isinstance(recipe.get("shear"), list)
        }
        named = {
            name: {**recipe, "shear": f"{name}.shear"} if f"{name}.shear" in own else recipe
            for name, recipe in recipes.items()
        }
        shears = value.get("shears") or {}
        if not own or not isinstance(shears, dict):
            return value
        return {**value, "recipes": named, "shears": {**shears, **own}}

    @field_validator("captioners")
    @classmethod
    def _no_captioner_is_called_raw(cls, value: dict[str, Captioner]) -> dict[str, Captioner]:
        if RAW_SOURCE in value:
            raise ValueError(f'"{RAW_SOURCE}" names the raw captions themselves: give the captioner another name')
        return value

    @field_validator("trainers")
    @classmethod
    def _no_trainer_is_called_none(cls, value: dict[str, TrainerSettings]) -> dict[str, TrainerSettings]:
        if NO_TRAINER in value:
            raise ValueError(f'"{NO_TRAINER}" stands for no trainer at all: give this one another name')
        return value

    @field_validator("shears")
    @classmethod
    def _none_means_none(cls, value: dict[str, list[ShearStep]]) -> dict[str, list[ShearStep]]:
        if value.get("none"):
            raise ValueError('the shear "none" is built in and keeps captions whole: give this one another name')
        return value

    @model_validator(mode="after")
    def _pairs_come_from_somewhere(self) -> Self:
        if self.pairs is None and self.inbox is None:
            raise ValueError("pairs: this key is required and missing, unless there is an `inbox`")
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if not self.recipes and self.grid is None and self.trainers:
            raise ValueError("recipes: there are none, and there is no grid either: write one of them")
        for name, recipe in self._written_recipes().items():
            self._check_recipe(f"recipes.{name}", recipe)
        grid = self._grid_arms()
        for name, recipe in grid.items():
            self._check_recipe("grid", recipe)
            if name in self.recipes:
                raise ValueError(
                    f'grid: it makes an arm "{name}", and a recipe already has that name: rename the recipe'
                )
        arms = [recipe.name for recipe in self.expanded_recipes()]
        retrained = self.automation_settings.retrain.recipes
        for name in retrained if retrained != "all" else []:
            check_known("automation.retrain.recipes", name, arms, "recipe")
        twice = [name for name in arms if arms.count(name) > 1]
        if twice:
            raise ValueError(f'recipes: with their seeds two of them would be called "{twice[0]}": rename one')
        return self

    @model_validator(mode="after")
    def _nodes_are_somebody_s(self) -> Self:
        for name, trainer in self.trainers.items():
            if trainer.nodes > 1 and self.executor.kind != "ray":
                raise ValueError(
                    f"trainers.{name}.nodes: {trainer.nodes} machines are a cluster's: write `executor: "
                    "{kind: ray, address: ...}`, or leave `nodes` out"
                )
        return self

    def _check_recipe(self, where: str, recipe: RecipeSettings) -> None:
        if recipe.captioners != "all":
            for captioner in recipe.captioners:
                check_known(f"{where}.captioners", captioner, list(self.captioners), "captioner")
            if len(set(recipe.captioners)) != len(recipe.captioners):
                raise ValueError(f"{where}.captioners: {recipe.captioners} names a captioner twice: name each once")
        check_known(f"{where}.shear", recipe.shear, ["none", *self.shears], "shear")
        try:
            recipe.mix.check_sources(list(self.captioners) if recipe.captioners == "all" else recipe.captioners)
        except ValueError as error:
            raise ValueError(f"{where}.mix.{error}") from None
        if recipe.trainer is not None:
            check_known(f"{where}.trainer", recipe.trainer, [NO_TRAINER, *self.trainers], "trainer")
        elif len(self.trainers) > 1:
            raise ValueError(f"{where}.trainer: say which of {', '.join(self.trainers)} trains this recipe")
        if recipe.evaluation_sets != "all":
            for name in recipe.evaluation_sets:
                check_known(f"{where}.evaluation_sets", name, list(self.evaluation_sets), "evaluation set")
        if recipe.finetune is not None:
            self._check_finetuning(f"{where}.finetune", recipe.finetune, recipe.trainer)

    def _check_finetuning(self, where: str, finetune: FinetuneSettings, trainer: str | None) -> None:
        check_known(f"{where}.target_set", finetune.target_set, list(self.target_sets), "target set")
        check_known(f"{where}.trainer", finetune.trainer, list(self.trainers), "trainer")
        first, second = self._trainer(trainer), self.trainers[finetune.trainer]
        if first is None:
            raise ValueError(f"{where}: the recipe has no trainer, so there is no checkpoint to fine-tune; give it one")
        if (first.kind, first.model) != (second.kind, second.model):
            raise ValueError(
                f"{where}.trainer: {finetune.trainer} trains {second.kind} {second.model}, and the recipe's checkpoint "
                f"is {first.kind} {first.model}: name a trainer of the same model"
            )

    @model_validator(mode="after")
    def _captioners_know_their_shears(self) -> Self:
        for name, captioner in self.captioners.items():
            if isinstance(captioner, PromptedSettings) and captioner.decoding.stop_at == "shear":
                used = {recipe.shear for recipe in self.expanded_recipes() if name in recipe.captioners}
                self.captioners[name] = captioner.stopping_at([self.shear_steps(shear) for shear in sorted(used)])
        return self

    def expanded_recipes(self) -> list[Recipe]:
        """Every recipe once per seed, names resolved: the YAML's in its order, then the grid's, each with its seeds."""
        return [
            self._expand(base, recipe, seed)
            for base, recipe in {**self._written_recipes(), **self._grid_arms()}.items()
            for seed in recipe.seeds or self.seeds
        ]

    def _written_recipes(self) -> dict[str, RecipeSettings]:
        """The YAML's recipes, or those that it implies."""
        if self.recipes or self.grid is not None:
            return self.recipes
        return {shear: RecipeSettings(captioners="all", shear=shear) for shear in self.shears} or {
            WHOLE: RecipeSettings(captioners="all")
        }

    def _trainer(self, name: str | None) -> TrainerSettings | None:
        """The trainer that a recipe names, or the only one; None where it is not trained."""
        return self.trainers.get(name or next(iter(self.trainers), NO_TRAINER))

    def _grid_arms(self) -> dict[str, RecipeSettings]:
        """The recipes that the grid makes, by their names; none without a grid."""
        if self.grid is None:
            return {}
        return expand_grid(self.grid, GridParts(list(self.captioners), self.shears, self.trainers, self.seeds))

    def recipe(self, name: str) -> Recipe:
        """The expanded recipe of that name; raises `ConfigError` when there is none."""
        for recipe in self.expanded_recipes():
            if recipe.name == name:
                return recipe
        known = [recipe.name for recipe in self.expanded_recipes()]
        raise ConfigError(f'There is no recipe "{name}"; known: {", ".join(known)}{nearest(name, known)}.')

    @property
    def automation_settings(self) -> AutomationSettings:
        """What the factory does automatically."""
        if self.automation is not None:
            return self.automation
        return AutomationSettings() if self.inbox is not None else AutomationSettings.off()

    def shear_steps(self, name: str) -> list[ShearStep]:
        """The steps of the shear of that name; `none` has none."""
        return [] if name == "none" else self.shears[name]

    def _expand(self, base: str, recipe: RecipeSettings, seed: int) -> Recipe:
        trainer, tuned = self._trainer(recipe.trainer), recipe.finetune
        return Recipe(
            name=base if seed == (recipe.seeds or self.seeds)[0] else f"{base}-seed-{seed}",
            base=base,
            seed=seed,
            captioners=tuple(self.captioners if recipe.captioners == "all" else recipe.captioners),
            shear=recipe.shear,
            mix=recipe.mix,
            filters=tuple(recipe.filters),
            trainer=trainer,
            evaluation_sets=tuple(self.evaluation_sets if recipe.evaluation_sets == "all" else recipe.evaluation_sets),
            finetune=Finetuning(target_set=tuned.target_set, trainer=self.trainers[tuned.trainer]) if tuned else None,
        )


def parse_config(data: Any, *, base: Path, source: str) -> FactoryConfig:
    """Validate a YAML file's content; relative paths start from the folder `base`, errors name `source`.

    Raises `ConfigError` with one sentence per error.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: a factory is a YAML mapping of keys to values; this is {type(data).__name__}.")
    try:
        return FactoryConfig.model_validate(data, context={"base": base})
    except ValidationError as error:
        problems = describe_validation_error(error, FactoryConfig)
        raise ConfigError("\n".join(f"{source}: {problem}." for problem in problems)) from None


def load_config(path: Path, *, seeds: list[int] | None = None) -> FactoryConfig:
    """Read and validate a factory's YAML; `seeds` overrides the file's own. Raises `ConfigError`.

    Example:
        >>> load_config(Path("my.yaml")).recipe("sheared").shear
        'first'
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; name the factory's YAML.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: it cannot be read as UTF-8 text ({error}).") from None
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: it is not valid YAML: {' '.join(str(error).split())}.") from None
    if seeds is not None and isinstance(data, dict):
        data = {**_without_own_seeds(data), "seeds": seeds}
    return parse_config(data, base=path.resolve().parent, source=str(path))


def _without_own_seeds(data: dict[Any, Any]) -> dict[Any, Any]:
    """A YAML's mapping without the seeds of single recipes and of the grid."""

    def without(value: Any) -> Any:
        return {key: each for key, each in value.items() if key != "seeds"} if isinstance(value, dict) else value

    recipes = data.get("recipes")
    changed = (
        {"recipes": {name: without(recipe) for name, recipe in recipes.items()}} if isinstance(recipes, dict) else {}
    )
    return {**data, **changed, **({"grid": without(data["grid"])} if "grid" in data else {})}


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses duplicate keys, of which plain YAML would silently keep the last (and lose a captioner)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)  # type: ignore[no-untyped-call]
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key "{key}" is there twice', key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
