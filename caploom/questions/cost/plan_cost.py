"""What a run of the present YAML would still make, and how long that takes, before anything runs.

What is to do is found as a run finds it: by the stages' own plans against the store. Seconds come from what was
measured in this store; where nothing like it was, they are not known, and no number is made up.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caploom.captioning.identity import captioner_fingerprint
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.questions.cost.items import CostItem
from caploom.questions.cost.rates import Rates
from caploom.questions.cost.shards import CostShard, cost_shards, images_to_caption, missing_rows
from caploom.questions.status.sets import judge_evaluation_set, judge_target_set
from caploom.questions.status.versions import Versions
from caploom.stages.checkpoint import FINE_TUNED, ZERO_SHOT, checkpoint_stage, finetuned_stage
from caploom.stages.exclusions import known_exclusions
from caploom.stages.raw_words import known_corpus_words
from caploom.stages.retrieval_metrics import retrieval_metrics_stage
from caploom.stages.shards import source_fingerprint
from caploom.stages.sheared import (
    needs_raw_words,
    shear_fingerprint,
    sheared_captions_stage,
    sheared_shard_stage,
)
from caploom.stages.training_set import training_set_stage
from caploom.storage.store import Artifact, Plan
from caploom.training.identity import trainer_identity
from caploom.training.settings import TrainerSettings
from caploom.training_set.filters import filters_identity

__all__ = ["CostItem", "CostPlan", "plan_cost"]


@dataclass(frozen=True)
class CostPlan:
    """What is to do, stage by stage.

    Attributes:
        factory: the factory's name.
        recipes: how many, whatever their seeds.
        trainings: how many recipes with their seeds.
        items: the work, upstream first; what is made already stands in them too.
        damaged: manifests that could not be read, a sentence each; what they describe counts as missing.
    """

    factory: str
    recipes: int
    trainings: int
    items: tuple[CostItem, ...]
    damaged: tuple[str, ...] = ()

    def of(self, stage: str) -> list[CostItem]:
        """The items of a stage."""
        return [item for item in self.items if item.stage == stage]

    @property
    def captions(self) -> int:
        """Images to caption, over all captioners."""
        return sum(item.units for item in self.of("captions"))

    @property
    def captions_unshared(self) -> int:
        """What it would be if each recipe had its own captions made."""
        return sum(item.units * max(1, item.shared_by) for item in self.of("captions"))

    @property
    def seconds(self) -> float:
        """Of all that has a measured rate; `not_measured` names the rest."""
        return sum(item.seconds or 0.0 for item in self.items)

    @property
    def not_measured(self) -> list[CostItem]:
        """What is to do and takes nobody knows how long."""
        return [item for item in self.items if item.to_do and item.seconds is None]

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to make."""
        return not any(item.to_do for item in self.items)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; seconds are null where not everything was measured before."""
        return {
            "factory": self.factory,
            "recipes": self.recipes,
            "trainings": self.trainings,
            "nothing_to_do": self.is_done,
            "captions_to_make": self.captions,
            "captions_if_made_for_each_recipe": self.captions_unshared,
            "seconds": None if self.not_measured else round(self.seconds, 1),
            "seconds_of_what_is_measured": round(self.seconds, 1),
            "not_measured": [f"{item.stage}: {item.name}" for item in self.not_measured],
            "items": [item.to_dict() for item in self.items],
            "damaged": list(self.damaged),
        }


def plan_cost(factory: Factory) -> CostPlan:
    """What a run of the present YAML would still make; nothing is made, drawn or loaded for it.

    Raises `SourceError` when the source cannot be read: it is read through, to count the rows that no shard holds yet.
    """
    return _Costing(factory).plan()


class _Costing:
    """One look at a factory."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._config = factory.config
        self._versions = Versions(factory.store)
        self._rates = Rates(factory.store, self._versions)
        self._recipes = self._config.expanded_recipes()
        # Arms that differ only in their seed share everything up to the training set.
        self._bases = {recipe.base: recipe for recipe in self._recipes}
        self._fingerprints = {name: captioner_fingerprint(each) for name, each in self._config.captioners.items()}
        self._shards: list[CostShard] = []
        self._sheared: dict[tuple[str, str], list[Artifact | None]] = {}
        self._training_sets: dict[str, Artifact | None] = {}
        self._stages: dict[str, list[Artifact | None]] = {}

    def plan(self) -> CostPlan:
        """All items, upstream first: each stage looks at what the ones before it found."""
        self._shards = cost_shards(self._factory, self._versions, self._fingerprints)
        items = [
            self._raw_pairs(),
            *(self._captions(name) for name in self._config.captioners),
            *self._shears(),
            *self._merges(),
            *self._target_sets(),
            *self._trainings(),
            *self._measurings(),
        ]
        return CostPlan(self._config.name, len(self._bases), len(self._recipes), tuple(items), self._versions.damaged)

    def _raw_pairs(self) -> CostItem:
        waiting = [shard for shard in self._shards if shard.pairs is None]
        source = source_fingerprint(self._factory)
        return CostItem(
            stage="raw_pairs",
            name="rows of the source",
            to_do=len(waiting),
            done=len(self._shards) - len(waiting),
            units=missing_rows(waiting),
            unit="rows",
            rate=self._rates.ingesting(source) if waiting else None,
            shared_by=len(self._bases),
        )

    def _captions(self, captioner: str) -> CostItem:
        settings, fingerprint = self._config.captioners[captioner], self._fingerprints[captioner]
        waiting = [shard for shard in self._shards if shard.captions[captioner] is None]
        images, exact = images_to_caption(self._factory, captioner, fingerprint, waiting)
        return CostItem(
            stage="captions",
            name=captioner,
            to_do=len(waiting),
            done=len(self._shards) - len(waiting),
            units=images,
            unit="captions",
            exact=exact,
            rate=self._rates.captioning(captioner, fingerprint, settings) if waiting else None,
            shared_by=sum(captioner in recipe.captioners for recipe in self._bases.values()),
        )

    def _shears(self) -> list[CostItem]:
        """Every captioner's captions by every shear that some recipe asks for."""
        asked: Counter[tuple[str, str]] = Counter()
        names: dict[str, str] = {}
        for recipe in self._bases.values():
            shear = shear_fingerprint(self._config.shear_steps(recipe.shear))
            names.setdefault(shear, recipe.shear)
            asked.update((captioner, shear) for captioner in recipe.captioners)
        items = []
        for (captioner, shear), recipes in asked.items():
            tables = self._sheared[captioner, shear] = self._sheared_tables(captioner, names[shear])
            waiting = [shard for shard, table in zip(self._shards, tables, strict=True) if table is None]
            items.append(
                CostItem(
                    stage="sheared",
                    name=f"{captioner}, {names[shear]}",
                    to_do=len(waiting),
                    done=len(tables) - len(waiting),
                    units=sum(shard.said(captioner) for shard in waiting),
                    unit="captions",
                    exact=all(shard.captions[captioner] is not None for shard in waiting),
                    rate=self._rates.shearing(shear) if waiting else None,
                    shared_by=recipes,
                )
            )
        return items

    def _sheared_tables(self, captioner: str, shear: str) -> list[Artifact | None]:
        steps = self._config.shear_steps(shear)
        pairs = [shard.pairs for shard in self._shards if shard.pairs is not None]
        corpus = known_corpus_words(self._factory.store, steps, pairs) if len(pairs) == len(self._shards) else None
        if corpus is None:
            return [None] * len(self._shards)
        return [
            self._made(
                sheared_shard_stage(steps, captioner, shard.name, corpus),
                [shard.captions[captioner], *([shard.pairs] if needs_raw_words(steps) else [])],
            )
            for shard in self._shards
        ]

    def _merges(self) -> list[CostItem]:
        """The training sets, together by their filters, which decide how long they take."""
        for base, recipe in self._bases.items():
            self._training_sets[base] = self._training_set(recipe)
        together: dict[str, list[Recipe]] = {}
        for recipe in self._bases.values():
            together.setdefault(", ".join(step.filter for step in recipe.filters), []).append(recipe)
        items = []
        for filters, recipes in together.items():
            waiting = [recipe for recipe in recipes if self._training_sets[recipe.base] is None]
            identity = filters_identity(waiting[0].filters) if waiting else []
            items.append(
                CostItem(
                    stage="training_set",
                    name=f"filters {filters}" if filters else "no filters",
                    to_do=len(waiting),
                    done=len(recipes) - len(waiting),
                    units=sum(self._said(recipe) for recipe in waiting),
                    unit="captions",
                    exact=self._is_exact(waiting),
                    rate=self._rates.merging(identity) if waiting else None,
                    shared_by=max(sum(each.base == recipe.base for each in self._recipes) for recipe in recipes),
                )
            )
        return items

    def _said(self, recipe: Recipe) -> int:
        """The captions that a recipe's training set is merged of."""
        return sum(shard.raw + sum(shard.said(name) for name in recipe.captioners) for shard in self._shards)

    def _is_exact(self, recipes: Sequence[Recipe]) -> bool:
        """Whether that is certain: everything that they are merged of is made."""
        used = {name for recipe in recipes for name in recipe.captioners}
        return not recipes or all(
            each is not None for shard in self._shards for each in (shard.pairs, *(shard.captions[n] for n in used))
        )

    def _training_set(self, recipe: Recipe) -> Artifact | None:
        if any(shard.pairs is None for shard in self._shards):
            return None
        steps = self._config.shear_steps(recipe.shear)
        corpus = known_corpus_words(self._factory.store, steps, [each.pairs for each in self._shards if each.pairs])
        if corpus is None:
            return None
        tables = [table for name in recipe.captioners for table in self._sheared[name, shear_fingerprint(steps)]]
        sheared = self._made(sheared_captions_stage(recipe, corpus), tables)
        known = [shard.pairs for shard in self._shards if shard.pairs is not None]
        left_out = known_exclusions(self._factory, recipe, known)
        return self._made(
            training_set_stage(self._factory, recipe, left_out), [sheared, *(shard.pairs for shard in self._shards)]
        )

    def _target_sets(self) -> list[CostItem]:
        used = dict.fromkeys(recipe.finetune.target_set for recipe in self._recipes if recipe.finetune is not None)
        self._targets = {name: judge_target_set(self._factory, name, self._versions).artifact for name in used}
        return [
            CostItem(
                stage="target_set",
                name=name,
                to_do=int(found is None),
                done=int(found is not None),
                units=int(found is None),
                unit="sets",
                shared_by=len({r.base for r in self._recipes if r.finetune and r.finetune.target_set == name}),
            )
            for name, found in self._targets.items()
        ]

    def _trainings(self) -> list[CostItem]:
        """The trainings of both stages, together by their trainer."""
        made: dict[str, list[bool]] = {}
        trainers: dict[str, TrainerSettings] = {}
        names = {each.model_dump_json(): name for name, each in reversed(self._config.trainers.items())}
        for recipe in self._recipes:
            first = self._made(checkpoint_stage(recipe), [self._training_sets[recipe.base]])
            self._stages[recipe.name] = [first]
            stages = [(recipe.trainer, ZERO_SHOT, first)]
            if recipe.finetune is not None:
                second = self._made(finetuned_stage(recipe), [first, self._targets[recipe.finetune.target_set]])
                self._stages[recipe.name].append(second)
                stages.append((recipe.finetune.trainer, FINE_TUNED, second))
            for trainer, stage, found in stages:
                name = names[trainer.model_dump_json()] + (", second stage" if stage == FINE_TUNED else "")
                made.setdefault(name, []).append(found is not None)
                trainers[name] = trainer
        return [self._training(name, trainers[name], found) for name, found in made.items()]

    def _training(self, name: str, trainer: TrainerSettings, made: Sequence[bool]) -> CostItem:
        to_do = made.count(False)
        return CostItem(
            stage="checkpoint",
            name=name,
            to_do=to_do,
            done=made.count(True),
            units=to_do * trainer.steps * trainer.batch_size,
            unit="samples",
            steps=to_do * trainer.steps,
            rate=self._rates.training(trainer_identity(trainer)) if to_do else None,
        )

    def _measurings(self) -> list[CostItem]:
        """The measurings, together by their evaluation sets, model and number of stages."""
        used = dict.fromkeys(name for recipe in self._recipes for name in recipe.evaluation_sets)
        sets = {name: judge_evaluation_set(self._factory, name, self._versions).artifact for name in used}
        groups: dict[tuple[tuple[str, ...], str], list[tuple[Recipe, bool]]] = {}
        for recipe in self._recipes:
            if recipe.evaluation_sets:
                inputs = [*self._stages[recipe.name], *(sets[name] for name in recipe.evaluation_sets)]
                found = self._made(retrieval_metrics_stage(recipe), inputs)
                model = trainer_identity(recipe.trainer)["model"]
                groups.setdefault((recipe.evaluation_sets, model), []).append((recipe, found is not None))
        items = []
        for (names, model), measured in groups.items():
            waiting = [recipe for recipe, found in measured if not found]
            items.append(
                CostItem(
                    stage="retrieval_metrics",
                    name=", ".join(names),
                    to_do=len(waiting),
                    done=len(measured) - len(waiting),
                    units=sum(len(self._stages[recipe.name]) for recipe in waiting),
                    unit="checkpoints",
                    rate=self._rates.measuring(names, model) if waiting else None,
                )
            )
        return items

    def _made(self, stage: Plan, inputs: Sequence[Artifact | None]) -> Artifact | None:
        """The finished artifact of a stage; None too where one of its inputs is still to be made."""
        known = [each for each in inputs if each is not None]
        if len(known) < len(inputs):
            return None
        return self._versions.find(stage.of(each.as_input() for each in known))
