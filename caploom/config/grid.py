"""Ablation grids: `grid:` in the YAML spans sets of captioners x shears x mixes x filters x trainers into recipes.

An arm's name is made of its own values alone, so that adding a value to the grid renames no arm. Defaults have no part
in it: the mix `uniform`, no filters, the first trainer of the YAML.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, PositiveInt, field_validator, model_validator
from pydantic_core import CoreSchema

from caploom.common.hashing import fingerprint
from caploom.common.json_schema import JsonSchema, Shorthand, with_shorthands
from caploom.common.names import MOST_NAME_CHARACTERS
from caploom.common.settings import Name, Settings, check_known
from caploom.config.recipes import NO_TRAINER, FinetuneSettings, RecipeSettings, Seeds
from caploom.shearing.settings import ShearStep
from caploom.training.settings import TrainerSettings
from caploom.training_set.filter_settings import FilterStep
from caploom.training_set.settings import MixSettings

NO_SHEAR = "none"

_RAW_ONLY = "raw-only"
_LONGEST_LIST = 60  # characters of captioners' names in an arm's name; beyond it they are counted and hashed
_MOST_MADE = 10_000  # arms; beyond it they are counted and not made, since sets of captioners double with each


class CaptionerSets(Settings):
    """Some sets of captioners: `[]` (raw only), `[a, b]`, `all`, or several at once such as `{subsets: each}`."""

    just: Literal["all"] | list[str] | None = Field(default=None, description="One set: `all`, or captioners' names.")
    subsets: Literal["each", "all", "up_to", "cumulative"] | None = Field(
        default=None,
        description="Several sets, none of them empty. each: every captioner alone; all: every subset; up_to: every "
        "subset of at most `most`; cumulative: the first captioner, the first two, and so on to all.",
    )
    most: PositiveInt | None = Field(default=None, description="Captioners in a set of `up_to`.")
    of: list[str] | None = Field(
        default=None, description="The captioners that `subsets` takes, in this order; by default the YAML's."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_yaml(cls, value: Any) -> Any:
        if value == "all" or isinstance(value, list):
            return {"just": value}
        if isinstance(value, str):
            raise ValueError(
                f'"{value}" is not a set of captioners: write [{value}], or all, or {{subsets: each}} and the like'
            )
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """`all`, or a list of names, may stand for the mapping."""
        return with_shorthands(core_schema, handler, {"const": "all"}, {"type": "array", "items": {"type": "string"}})

    @model_validator(mode="after")
    def _is_unambiguous(self) -> Self:
        if (self.just is None) == (self.subsets is None):
            raise ValueError("write a list of captioners, or all, or {subsets: each | all | up_to | cumulative}")
        if (self.subsets == "up_to") != (self.most is not None):
            raise ValueError("write {subsets: up_to, most: 2}: `most` belongs to `up_to`, and only to it")
        if self.just is not None and self.of is not None:
            raise ValueError("`of` names the captioners of `subsets`; leave it out of a single set")
        return self

    def named(self) -> list[str]:
        """The captioners that are mentioned by name."""
        return [*(self.just if isinstance(self.just, list) else []), *(self.of or [])]

    def sets(self, captioners: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """The sets; `captioners` are all of the YAML's, in its order."""
        if self.just is not None:
            yield tuple(captioners if self.just == "all" else self.just)
            return
        of = captioners if self.of is None else self.of
        if self.subsets == "cumulative":
            yield from (tuple(of[:size]) for size in range(1, len(of) + 1))
            return
        for size in range(1, self._most(len(of)) + 1):
            yield from combinations(of, size)

    def count(self, captioners: Sequence[str]) -> int:
        """The number of sets, without making them."""
        of = len(captioners if self.of is None else self.of)
        if self.just is not None:
            return 1
        if self.subsets == "cumulative":
            return of
        return sum(math.comb(of, size) for size in range(1, self._most(of) + 1))

    def _most(self, of: int) -> int:
        return min(of, {"each": 1, "up_to": self.most or 1}.get(self.subsets or "", of))


class GridSettings(Settings):
    """Values of each factor; every combination is an arm, and equivalent arms are made once."""

    captioners: Annotated[
        Annotated[list[CaptionerSets], Field(min_length=1)], Shorthand(of=CaptionerSets), Shorthand({"const": "all"})
    ] = Field(description="Sets of captioners: a list of them, or one mapping such as `{subsets: each}`.")
    shears: list[str] = Field(default=[NO_SHEAR], min_length=1, description="Names of shears, or `none`.")
    mixes: dict[Name, MixSettings] = Field(
        default={"uniform": MixSettings()},
        min_length=1,
        description="Mixes by name. Of the weights an arm takes those of its own captioners.",
    )
    filters: dict[Name, list[FilterStep]] = Field(
        default={"unfiltered": []}, min_length=1, description="Lists of filters by name; `[]` is none."
    )
    trainers: list[str] | None = Field(
        default=None, min_length=1, description="Names of trainers; may be left out when there is only one."
    )
    seeds: Seeds | None = Field(default=None, description="Instead of the YAML's own seeds.")
    evaluation_sets: Literal["all"] | list[str] = Field(default="all", description="As in a recipe, for every arm.")
    finetune: FinetuneSettings | None = Field(default=None, description="As in a recipe, for every arm.")
    limit: PositiveInt = Field(default=64, description="A grid with more trainings, arms times seeds, is refused.")

    @field_validator("captioners", mode="before")
    @classmethod
    def _one_mapping_is_a_list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) or value == "all" else value


@dataclass(frozen=True)
class GridParts:
    """What a grid's names stand for: the YAML's captioners in its order, its shears, its trainers and its seeds."""

    captioners: Sequence[str]
    shears: Mapping[str, list[ShearStep]]
    trainers: Mapping[str, TrainerSettings]
    seeds: Sequence[int]


def expand_grid(grid: GridSettings, parts: GridParts) -> dict[str, RecipeSettings]:
    """The grid's arms by their names, in the order of its factors.

    Raises `ValueError` with the key's path when a name is unknown, when two arms would have the same name, or when the
    grid makes more trainings than its limit.
    """
    check_grid(grid, parts)
    seeds = len(grid.seeds or parts.seeds)
    arms = list(islice(_arms(grid, parts), _MOST_MADE + 1)) if _most_arms(grid, parts) <= _MOST_MADE else None
    number = (len(arms) if arms is not None else _most_arms(grid, parts)) * seeds
    if arms is None or number > grid.limit:
        raise ValueError(_too_many(grid, parts, number, seeds))
    named: dict[str, RecipeSettings] = {}
    for name, arm in arms:
        if name in named:
            raise ValueError(
                f'grid: two of its arms would have the name "{name}": give mixes, filters, trainers or captioners '
                "different names"
            )
        if len(name) > MOST_NAME_CHARACTERS:
            raise ValueError(
                f'grid: the arm "{name}" has a name of {len(name)} characters, and {MOST_NAME_CHARACTERS} are allowed: '
                "shorten the names of its shear, mix, filters or trainer"
            )
        named[name] = arm
    return named


def check_grid(grid: GridSettings, parts: GridParts) -> None:
    """Raise `ValueError` with the key's path unless every name of the grid is known."""
    for index, sets in enumerate(grid.captioners):
        named = sets.named()
        for name in named:
            check_known(f"grid.captioners.{index}", name, parts.captioners, "captioner")
        if len(set(named)) != len(named):
            raise ValueError(f"grid.captioners.{index}: {named} names a captioner twice: name each once")
    for shear in grid.shears:
        check_known("grid.shears", shear, [NO_SHEAR, *parts.shears], "shear")
    for trainer in grid.trainers or []:
        check_known("grid.trainers", trainer, list(parts.trainers), "trainer")
    if grid.trainers is None and len(parts.trainers) > 1:
        raise ValueError(f"grid.trainers: say which of {', '.join(parts.trainers)} train the grid's arms")
    for name, mix in grid.mixes.items():
        try:
            mix.check_sources(_spanned(grid, parts))
        except ValueError as error:
            raise ValueError(f"grid.mixes.{name}.{error}") from None


def _spanned(grid: GridSettings, parts: GridParts) -> list[str]:
    """The captioners that are in any of the grid's sets, in the YAML's order."""
    spanned = {
        name
        for sets in grid.captioners
        for name in (sets.named() if isinstance(sets.just, list) or sets.of is not None else parts.captioners)
    }
    return [name for name in parts.captioners if name in spanned]


def _arms(grid: GridSettings, parts: GridParts) -> Iterator[tuple[str, RecipeSettings]]:
    """Each arm with its name; of equivalent arms the first."""
    made = set()
    in_order = {name: index for index, name in enumerate(parts.captioners)}
    all_sets = (chosen for sets in grid.captioners for chosen in sets.sets(parts.captioners))
    rest = list(product(grid.shears, grid.mixes.items(), grid.filters.items(), _trainers(grid, parts)))
    for captioners in all_sets:
        chosen = tuple(sorted(captioners, key=in_order.__getitem__))
        for shear, (mix_name, given), (filters_name, filters), trainer in rest:
            steps = parts.shears.get(shear, []) if chosen else []  # raw captions are never sheared
            mix = _mix_of(given, chosen, mix_name)
            settings = parts.trainers.get(trainer)
            meaning = fingerprint(
                [
                    chosen,
                    [step.model_dump(mode="json") for step in steps],
                    mix.model_dump(mode="json"),
                    [step.model_dump(mode="json") for step in filters],
                    settings.model_dump(mode="json") if settings is not None else None,
                ]
            )
            if meaning in made:
                continue
            made.add(meaning)
            name_parts = [
                captioners_part(chosen, parts.captioners),
                *([shear if steps else NO_SHEAR] if chosen else []),
                *([mix_name] if mix != MixSettings() else []),
                *([filters_name] if filters else []),
                *([trainer] if trainer != next(iter(parts.trainers), NO_TRAINER) else []),
            ]
            yield (
                ".".join(name_parts),
                RecipeSettings(
                    captioners=list(chosen),
                    shear=shear if steps else NO_SHEAR,
                    mix=mix,
                    filters=filters,
                    trainer=trainer,
                    evaluation_sets=grid.evaluation_sets,
                    finetune=grid.finetune,
                    seeds=grid.seeds,
                ),
            )


def captioners_part(chosen: Sequence[str], captioners: Sequence[str]) -> str:
    """The captioners' part of an arm's name; `chosen` is in the order of `captioners`, which is the YAML's.

    The first three or more of the YAML's list are `3-captioners`, so that a captioner added to its end renames nothing.
    """
    if not chosen:
        return _RAW_ONLY
    if len(chosen) > 2 and list(chosen) == list(captioners[: len(chosen)]):
        return f"{len(chosen)}-captioners"
    listed = "-and-".join(chosen)
    return listed if len(listed) <= _LONGEST_LIST else f"{len(chosen)}-captioners-{fingerprint(list(chosen))[:8]}"


def _mix_of(mix: MixSettings, chosen: tuple[str, ...], name: str) -> MixSettings:
    """The mix of an arm: the weights of its own captioners; uniform where only raw captions would be weighed."""
    if mix.strategy not in ("weights", "raw_probability"):
        return mix
    modifiers = {"sub_caption": mix.sub_caption, "source_prefix": mix.source_prefix}
    if not chosen:
        return MixSettings.model_validate(modifiers)
    if mix.weights is None:
        return mix
    own = {source: weight for source, weight in mix.weights.items() if source == "raw" or source in chosen}
    if not any(own.values()):
        raise ValueError(f"grid.mixes.{name}.weights: with {', '.join(chosen)} every weight is 0: raise one of them")
    return MixSettings.model_validate({"weights": own, **modifiers})


def _trainers(grid: GridSettings, parts: GridParts) -> list[str]:
    return grid.trainers or list(parts.trainers) or [NO_TRAINER]


def _most_arms(grid: GridSettings, parts: GridParts) -> int:
    """The combinations, before equivalent ones are merged."""
    sets = sum(spec.count(parts.captioners) for spec in grid.captioners)
    return sets * len(grid.shears) * len(grid.mixes) * len(grid.filters) * len(_trainers(grid, parts))


def _too_many(grid: GridSettings, parts: GridParts, number: int, seeds: int) -> str:
    """The number of trainings, and what it would be with one value less per factor."""
    smaller: dict[str, dict[str, Any]] = {
        "{subsets: cumulative} for captioners": {"captioners": [CaptionerSets(subsets="cumulative")]},
        "one shear": {"shears": grid.shears[:1]},
        "one mix": {"mixes": dict(islice(grid.mixes.items(), 1))},
        "one list of filters": {"filters": dict(islice(grid.filters.items(), 1))},
        "one trainer": {"trainers": _trainers(grid, parts)[:1]},
        "one seed": {"seeds": list(grid.seeds or parts.seeds)[:1]},
    }
    ways = []
    for what, change in smaller.items():
        changed = grid.model_copy(update=change)
        count = _count(changed, parts) * len(changed.seeds or parts.seeds)
        if count < number:
            ways.append(f"{count:,} with {what}")
    return (
        f"grid: it makes {number:,} trainings ({number // seeds:,} arms x {seeds} seeds), more than its limit of "
        f"{grid.limit:,}; it would be {', '.join(ways)}: leave values out, or raise grid.limit"
    )


def _count(grid: GridSettings, parts: GridParts) -> int:
    most = _most_arms(grid, parts)
    return most if most > _MOST_MADE else sum(1 for _ in _arms(grid, parts))
