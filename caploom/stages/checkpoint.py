"""The `checkpoint` stage: a model trained on a recipe's training set, then perhaps fine-tuned on a target set."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from caploom.common.hashing import file_sha256, fingerprint
from caploom.config.factory import Factory
from caploom.config.recipes import Finetuning, Recipe
from caploom.errors import ConfigError
from caploom.stages.checks import LOSS_IS_FINITE, CheckOutcome
from caploom.stages.evaluation_sets import evaluation_set
from caploom.stages.graph import Graph, graph_of
from caploom.stages.moves import moves_of
from caploom.stages.resized_images import resized_images
from caploom.stages.stage import (
    Alike,
    Checks,
    Configuration,
    Cost,
    Key,
    Making,
    Measured,
    Piece,
    Ref,
    Stage,
    Tools,
    keys_of,
)
from caploom.stages.target_set import refuse_shared_images
from caploom.stages.words import trainer_in_words
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact, Draft
from caploom.training.identity import trainer_identity
from caploom.training.job import TrainingEvent, TrainingJob, TrainingResult
from caploom.training.launch import Launch, claimed, launch_training, remove_workdir
from caploom.training.settings import TrainerSettings, TrainingSettings
from caploom.training_set.write import training_files

KIND = "checkpoint"
FINETUNED_KIND = "finetuned_checkpoint"
CODE_VERSION = "2"

ZERO_SHOT, FINE_TUNED = "zero-shot", "fine-tuned"
"""The stages of a recipe, as the field names what is measured after each."""

_UNFINISHED = "training_state"
_LOG = logging.getLogger(__name__)

Report = Callable[[TrainingEvent], None]


def train_recipe(
    factory: Factory | Graph, recipe: Recipe, report: Report | None = None, *, launch: Launch = launch_training
) -> Artifact:
    """Train a recipe's model, unless it is trained: the model's files and `losses.parquet`."""
    tools = Tools(launch=launch, report=report or (lambda event: None))
    return graph_of(factory, recipe).make(Ref(KIND, (recipe.name,)), tools)


def finetune_recipe(
    factory: Factory | Graph, recipe: Recipe, report: Report | None = None, *, launch: Launch = launch_training
) -> Artifact:
    """Train a recipe's checkpoint on, on its target set, unless that is done: the second stage."""
    tools = Tools(launch=launch, report=report or (lambda event: None))
    return graph_of(factory, recipe).make(Ref(FINETUNED_KIND, (recipe.name,)), tools)


def _build(making: Making, draft: Draft) -> None:
    (training_set,) = making.inputs()
    _train(making, draft, training_files(training_set), trainer_of(making.recipe))


def _build_finetuned(making: Making, draft: Draft) -> None:
    recipe, finetuning = making.recipe, _finetuning(making.recipe)
    checkpoint, target = making.inputs()
    for evaluated in recipe.evaluation_sets:
        refuse_shared_images(finetuning.target_set, target, evaluated, evaluation_set(making.graph, evaluated))
    rows = sorted(target.folder.glob("rows-*.parquet"))
    _train(making, draft, rows, finetuning.trainer, initial=checkpoint.folder)


def _train(
    making: Making, draft: Draft, rows: list[Path], settings: TrainerSettings, *, initial: Path | None = None
) -> None:
    unfinished = _unfinished(making)
    job = TrainingJob(
        training_set=rows,
        settings=settings,
        seed=making.recipe.seed,
        out=draft.folder,
        initial=initial,
        state=unfinished / "state" if settings.save_every is not None else None,
        resized=resized_images(making.graph, settings, say=_LOG.info) if settings.resized_cache else [],
        moves=moves_of(making.graph),
    )
    _describe(draft, making.tools.launch(job, unfinished, making.tools.report), job.seed)


@contextmanager
def _claimed(making: Making) -> Iterator[None]:
    with claimed(_unfinished(making), "/".join(making.plan.name)):
        yield
    remove_workdir(_unfinished(making))


def _unfinished(making: Making) -> Path:
    """The folder of a training that is not finished: it is not the artifact's, and outlives a killed run."""
    return making.store.path(f"{_UNFINISHED}/{making.plan.fingerprint}")


def _describe(draft: Draft, result: TrainingResult, seed: int) -> None:
    draft.device = result.device
    draft.seeds = {"training": seed}
    weights = sorted(draft.folder.rglob("*.safetensors"))
    draft.data_version = fingerprint([file_sha256(file) for file in weights])[:16]
    draft.summary = {
        "steps": result.steps,
        "samples_seen": result.samples_seen,
        "seconds": round(result.seconds, 2),
        "samples_per_second": round(result.samples_per_second, 1),
        "data_wait_share": round(result.data_wait_share, 4),
        "first_loss": result.losses[0][1],
        "final_loss": result.final_loss,
        "losses": result.losses,
        "unusable_rows": result.failures,
        "truncated_share": round(result.truncated_share, 4),
        "resumed_from": result.resumed_from,
        "processes": result.processes,
        "threads": result.threads,
        "notes": result.notes,
    }


def trainer_of(recipe: Recipe) -> TrainerSettings:
    """What trains a recipe's model; raises `ConfigError` when nothing does."""
    if recipe.trainer is None:
        raise ConfigError(f"The recipe {recipe.name} has no trainer, so it ends at its training set; give it one.")
    return recipe.trainer


def _is_trained(recipe: Recipe) -> bool:
    return recipe.is_trained


def _finetuning(recipe: Recipe) -> Finetuning:
    if recipe.finetune is None:
        raise ConfigError(f"The recipe {recipe.name} has no second stage; give it a `finetune`.")
    return recipe.finetune


def check_checkpoint(graph: Graph, artifact: Artifact) -> list[CheckOutcome]:
    """The loss is a number to the end and has fallen."""
    first, last = artifact.manifest.summary["first_loss"], artifact.manifest.summary["final_loss"]
    sentence = f"The loss went from {first:.3f} to {last:.3f}."
    # False for NaN too: no comparison with it holds.
    return [CheckOutcome(LOSS_IS_FINITE, last < float("inf"), sentence, {"first": first, "final": last})]


def _settings(kind: str) -> Callable[[Graph, Key], Configuration]:
    def settings(graph: Graph, key: Key) -> Configuration:
        trainer = _trainer_of(graph, Ref(kind, key))
        return {"trainer": _identity(graph, trainer), "seed": graph.recipe(key[0]).seed}

    return settings


def _of_both_stages(graph: Graph, key: Key) -> Configuration:
    first, second = CHECKPOINT.settings(graph, key), graph.recipe(key[0]).finetune
    if second is None:
        return first
    target = graph.config.target_sets[second.target_set].fingerprinted()
    return {**first, "finetune": _identity(graph, second.trainer), "target_set": target}


def _identity(graph: Graph, trainer: TrainingSettings) -> Configuration:
    return graph.fact(("trainer", trainer.model_dump_json()), lambda: trainer_identity(trainer))


def _trainer_of(graph: Graph, ref: Ref) -> TrainingSettings:
    recipe = graph.recipe(ref.key[0])
    return trainer_of(recipe) if ref.kind == KIND else _finetuning(recipe).trainer


def _cost(kind: str, suffix: str) -> Cost:
    """Of both stages: together by their trainer."""

    def line(graph: Graph, key: Key) -> str:
        trainer = _trainer_of(graph, Ref(kind, key)).model_dump_json()
        names = {each.model_dump_json(): name for name, each in reversed(graph.config.trainers.items())}
        return names[trainer] + suffix

    def units(graph: Graph, keys: Sequence[Key]) -> tuple[int, bool]:
        trainers = [_trainer_of(graph, Ref(kind, key)) for key in keys]
        return sum(each.steps * each.batch_size for each in trainers), True

    def alike(graph: Graph, key: Key) -> list[Alike]:
        trainer = _identity(graph, _trainer_of(graph, Ref(kind, key)))

        def same(*keys: str) -> Callable[[Graph, Manifest], bool]:
            return lambda graph, each: all(
                each.configuration.get("trainer", {}).get(key) == trainer.get(key) for key in keys
            )

        return [
            Alike("samples of this model at this batch size", (), same("kind", "model", "batch_size", "precision")),
            Alike("samples of this model at another batch size", (), same("kind", "model")),
        ]

    return Cost(
        unit="samples",
        line=line,
        units=units,
        measured=_measured,
        alike=alike,
        steps=lambda graph, key: _trainer_of(graph, Ref(kind, key)).steps,
        also=(KIND, FINETUNED_KIND),
        title=KIND,
        verb="train",
    )


def _measured(graph: Graph, manifest: Manifest) -> Measured | None:
    if manifest.summary.get("resumed_from"):
        return None  # part of it was not timed
    seconds = manifest.summary.get("seconds", 0.0)
    return Measured(manifest.summary.get("samples_seen", 0), seconds, max(0.0, manifest.seconds - seconds))


CHECKPOINT = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("recipe",),
    keys=keys_of(_is_trained),
    recipes=_is_trained,
    settings=_settings(KIND),
    build=_build,
    upstream=("training_set",),
    inputs=lambda graph, key: [Ref("training_set", key)],
    around=_claimed,
    words=trainer_in_words,
    unit="steps",
    cost=_cost(KIND, ""),
    reads_images=True,
    ignored_settings=frozenset({"seed"}),
    checks=Checks((LOSS_IS_FINITE,), check_checkpoint),
    piece=Piece("trainer", _of_both_stages),
)

FINETUNED_CHECKPOINT = replace(
    CHECKPOINT,
    kind=FINETUNED_KIND,
    keys=keys_of(lambda recipe: recipe.finetune is not None),
    recipes=lambda recipe: recipe.finetune is not None,
    settings=_settings(FINETUNED_KIND),
    build=_build_finetuned,
    upstream=(KIND, "target_set"),
    inputs=lambda graph, key: [Ref(KIND, key), Ref("target_set", (_finetuning(graph.recipe(key[0])).target_set,))],
    slot=lambda key: (KIND, key[0]),
    label=FINE_TUNED,
    cost=_cost(FINETUNED_KIND, ", second stage"),
    piece=None,
)
