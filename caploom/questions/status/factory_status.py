"""What of a factory is missing or stale, and why: the whole graph of the present YAML against the store.

A slot is `stale` by a cause of its own: its configuration or Caploom's code differs from what its newest version was
made with, or the content of an input that is current. What lies downstream of a slot that is not current is `outdated`
when nothing of its own differs: it waits, and whether it must be made again shows when its input has been. An input
made again with the same content (the same data version) wakes nobody. Nothing is made here and nothing written.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.questions.status.data import DataSlots
from caploom.questions.status.node import (
    Judged,
    Made,
    Question,
    current_inputs,
    judge,
    own_causes,
    plan_of,
    waiting,
)
from caploom.questions.status.sets import judge_evaluation_set, judge_target_set
from caploom.questions.status.slots import Cause, FactoryStatus, Slot, State, Why
from caploom.questions.status.versions import Label, Versions, address_label
from caploom.report.make import CODE_VERSION as REPORT_CODE_VERSION
from caploom.report.make import KIND as REPORT
from caploom.stages.checkpoint import FINE_TUNED, checkpoint_stage, finetuned_stage
from caploom.stages.exclusions import known_exclusions
from caploom.stages.retrieval_metrics import retrieval_metrics_stage
from caploom.stages.training_set import training_set_stage
from caploom.storage.store import Plan

__all__ = ["Cause", "FactoryStatus", "Slot", "State", "Why", "factory_status"]

_YAML_KEYS = {"json": "training_json"}
"""Keys of a stage's configuration that the YAML calls otherwise."""


def factory_status(factory: Factory) -> FactoryStatus:
    """How each slot of the present YAML stands: shards, captioners, recipes and the report, upstream first."""
    return _Survey(factory).status()


class _Survey:
    """One look at a factory: every slot is judged once."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._versions = Versions(factory.store)
        self._recipes = factory.config.expanded_recipes()
        self._data = DataSlots(factory, self._versions)
        self._judged: dict[Label, Judged] = {}

    def status(self) -> FactoryStatus:
        """All slots."""
        config = self._factory.config
        slots = [each.slot for each in self._data.raw_pairs]
        slots += [each.slot for captioner in config.captioners for each in self._data.captions(captioner)]
        slots += [self._data.sheared(recipe).slot for recipe in self._recipes]
        slots += [self._training_set(recipe).slot for recipe in self._recipes]
        slots += [
            self._target_set(name).slot for name in _used(r.finetune.target_set for r in self._recipes if r.finetune)
        ]
        slots += [_one_slot([self._checkpoint(recipe), *self._finetuned(recipe)]) for recipe in self._recipes]
        slots += [self._evaluation_set(n).slot for n in _used(n for r in self._recipes for n in r.evaluation_sets)]
        metrics = [self._metrics(recipe) for recipe in self._recipes if recipe.evaluation_sets]
        slots += [each.slot for each in metrics]
        slots.append(self._report(metrics))
        return FactoryStatus(config.name, tuple(slots), self._versions.damaged)

    def _target_sets(self) -> list[str]:
        return _used(recipe.finetune.target_set for recipe in self._recipes if recipe.finetune is not None)

    def _training_set(self, recipe: Recipe) -> Judged:
        upstream = [self._data.sheared(recipe), *self._data.raw_pairs]
        pairs = [each.artifact for each in self._data.raw_pairs if each.artifact is not None]
        left_out = known_exclusions(self._factory, recipe, pairs)
        return self._judge("training_set", recipe.name, training_set_stage(self._factory, recipe, left_out), upstream)

    def _checkpoint(self, recipe: Recipe) -> Judged:
        return self._judge("checkpoint", recipe.name, checkpoint_stage(recipe), [self._training_set(recipe)])

    def _finetuned(self, recipe: Recipe) -> list[Judged]:
        """The second stage, where there is one."""
        if recipe.finetune is None:
            return []
        upstream = [self._checkpoint(recipe), self._target_set(recipe.finetune.target_set)]
        return [self._judge("checkpoint", recipe.name, finetuned_stage(recipe), upstream)]

    def _target_set(self, name: str) -> Judged:
        return self._once(("target_sets", name), lambda: judge_target_set(self._factory, name, self._versions))

    def _evaluation_set(self, name: str) -> Judged:
        return self._once(("evaluation_sets", name), lambda: judge_evaluation_set(self._factory, name, self._versions))

    def _metrics(self, recipe: Recipe) -> Judged:
        sets = [self._evaluation_set(name) for name in recipe.evaluation_sets]
        upstream = [self._checkpoint(recipe), *self._finetuned(recipe), *sets]
        return self._judge("retrieval_metrics", recipe.name, retrieval_metrics_stage(recipe), upstream)

    def _report(self, metrics: Sequence[Judged]) -> Slot:
        """The report is of what is measured: it is current as long as a run would find it, arms that wait or not."""
        newest = self._versions.newest(REPORT)
        waits = waiting(metrics)
        if newest is None:
            return Slot(REPORT, None, State.MISSING, (Cause(Why.NEVER_MADE, REPORT, "never made"), *waits))
        manifest = newest.manifest
        # A recipe's own measurement stands before those of earlier versions of its data, which alone a recipe that
        # waited may have.
        reported = {
            label: record.data_version
            for record in reversed(manifest.inputs)
            if (label := address_label(record.address))[1] not in manifest.configuration["waiting"]
        }
        present = Made({"name": self._factory.config.name}, REPORT_CODE_VERSION, current_inputs(metrics))
        own = own_causes(
            Made({"name": manifest.configuration["factory"]}, manifest.code_version, reported), present, metrics
        )
        unmeasured = [each.slot.partition for each in metrics if each.artifact is None]
        if own:
            return Slot(REPORT, None, State.STALE, (*own, *waits), manifest.address)
        if waits and (reported != present.inputs or manifest.configuration["waiting"] != unmeasured):
            return Slot(REPORT, None, State.OUTDATED, tuple(waits), manifest.address)
        same = any(each.slot.same_content for each in metrics)
        return Slot(REPORT, None, State.CURRENT, (), manifest.address, same)

    def _judge(self, asset: str, name: str, stage: Plan, upstream: Sequence[Judged]) -> Judged:
        """A recipe's slot, whose configuration is told with the YAML's keys."""
        base = stage.name[-1]

        def told(made: Made) -> Made:
            return replace(made, configuration={_YAML_KEYS.get(key, key): v for key, v in made.configuration.items()})

        question = Question(
            asset=asset,
            partition=name,
            label=(stage.kind, base),
            plan=plan_of(stage, upstream),
            present=told(Made(stage.configuration, stage.code_version, current_inputs(upstream))),
            upstream=upstream,
            earlier=lambda: self._versions.newest(stage.kind, base),
            past=lambda artifact: told(Made.of_artifact(artifact)),
        )
        return self._once((f"{stage.kind}", name), lambda: judge(question, self._versions))

    def _once(self, key: Label, make: Callable[[], Judged]) -> Judged:
        if key not in self._judged:
            self._judged[key] = make()
        return self._judged[key]


def _one_slot(stages: Sequence[Judged]) -> Slot:
    """A recipe's checkpoints as the one slot that they are in Dagster."""
    first, *rest = (each.slot for each in stages)
    slot = first
    for second in rest:
        if second.state is State.CURRENT:
            continue
        causes = [
            replace(cause, words=f"{FINE_TUNED}: {cause.words}")
            for cause in second.causes
            if cause.why is not Why.WAITS or cause.what != slot.asset
        ]
        state = second.state if slot.state is State.CURRENT else slot.state
        if State.STALE in (first.state, second.state) or state is State.MISSING:
            state = first.state if first.state is State.MISSING else State.STALE
        slot = replace(slot, state=state, causes=(*slot.causes, *causes))
    return slot


def _used(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
