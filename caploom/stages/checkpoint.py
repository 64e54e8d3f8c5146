"""The `checkpoint` stage: a model trained on a recipe's training set, then perhaps fine-tuned on a target set."""

import logging
from collections.abc import Callable
from pathlib import Path

from caploom.common.hashing import file_sha256, fingerprint
from caploom.config.factory import Factory
from caploom.config.recipes import Finetuning, Recipe
from caploom.errors import ConfigError
from caploom.stages.resized_images import resized_images
from caploom.stages.training_set import training_files, training_set_plan
from caploom.storage.store import Artifact, Draft, Plan
from caploom.training.identity import trainer_identity
from caploom.training.job import TrainingEvent, TrainingJob, TrainingResult
from caploom.training.launch import Launch, claimed, launch_training, remove_workdir

KIND = "checkpoint"
FINETUNED_KIND = "finetuned_checkpoint"
CODE_VERSION = "2"

ZERO_SHOT, FINE_TUNED = "zero-shot", "fine-tuned"
"""The stages of a recipe, as the field names what is measured after each."""

_UNFINISHED = "training_state"
_LOG = logging.getLogger(__name__)

Report = Callable[[TrainingEvent], None]


def checkpoint_plan(factory: Factory, recipe: Recipe) -> Plan:
    """The plan of a recipe's checkpoint; raises `MissingArtifactError` before its training set is made."""
    training_set = factory.store.require(
        training_set_plan(factory, recipe), make_with=f"materialize training_set [{recipe.name}]"
    )
    return checkpoint_stage(recipe).of([training_set.as_input()])


def checkpoint_stage(recipe: Recipe) -> Plan:
    """The same without the inputs."""
    return Plan(
        kind=KIND,
        name=(recipe.name,),
        code_version=CODE_VERSION,
        configuration={"trainer": trainer_identity(recipe.trainer), "seed": recipe.seed},
    )


def finetuned_plan(factory: Factory, recipe: Recipe) -> Plan:
    """The plan of a recipe's fine-tuned checkpoint; raises `MissingArtifactError` before its first stage is trained."""
    from caploom.stages.target_set import target_set

    finetuning = _finetuning(recipe)
    checkpoint = factory.store.require(
        checkpoint_plan(factory, recipe), make_with=f"materialize checkpoint [{recipe.name}]"
    )
    target = target_set(factory, finetuning.target_set)
    return finetuned_stage(recipe).of([checkpoint.as_input(), target.as_input()])


def finetuned_stage(recipe: Recipe) -> Plan:
    """The same without the inputs: the recipe's checkpoint, then the target set."""
    return Plan(
        kind=FINETUNED_KIND,
        name=(recipe.name,),
        code_version=CODE_VERSION,
        configuration={"trainer": trainer_identity(_finetuning(recipe).trainer), "seed": recipe.seed},
    )


def train_recipe(
    factory: Factory, recipe: Recipe, report: Report | None = None, *, launch: Launch = launch_training
) -> Artifact:
    """Train a recipe's model, unless it is trained: the model's files and `losses.parquet`."""
    plan = checkpoint_plan(factory, recipe)
    training_set = factory.store.require(training_set_plan(factory, recipe), make_with="merge")
    job = TrainingJob(
        training_set=training_files(training_set), settings=recipe.trainer, seed=recipe.seed, out=Path(), initial=None
    )
    return _trained(factory, plan, job, report, launch)


def finetune_recipe(
    factory: Factory, recipe: Recipe, report: Report | None = None, *, launch: Launch = launch_training
) -> Artifact:
    """Train a recipe's checkpoint on, on its target set, unless that is done: the second stage."""
    from caploom.stages.target_set import target_set

    plan, finetuning = finetuned_plan(factory, recipe), _finetuning(recipe)
    checkpoint = factory.store.require(checkpoint_plan(factory, recipe), make_with="train")
    job = TrainingJob(
        training_set=sorted(target_set(factory, finetuning.target_set).folder.glob("rows-*.parquet")),
        settings=finetuning.trainer,
        seed=recipe.seed,
        out=Path(),
        initial=checkpoint.folder,
    )
    return _trained(factory, plan, job, report, launch)


def _trained(factory: Factory, plan: Plan, job: TrainingJob, report: Report | None, launch: Launch) -> Artifact:
    unfinished = factory.store.path(f"{_UNFINISHED}/{plan.fingerprint}")

    def build(draft: Draft) -> None:
        state = unfinished / "state" if job.settings.save_every is not None else None
        resized = resized_images(factory, job.settings, say=_LOG.info) if job.settings.resized_cache else []
        started = job.model_copy(update={"out": draft.folder, "state": state, "resized": resized})
        result = launch(started, unfinished, report or (lambda event: None))
        _describe(draft, result, job.seed)

    found = factory.store.find(plan)
    if found is not None:
        return found
    with claimed(unfinished, "/".join(plan.name)):
        made = factory.store.make(plan, build)
    remove_workdir(unfinished)
    return made


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


def _finetuning(recipe: Recipe) -> Finetuning:
    if recipe.finetune is None:
        raise ConfigError(f"The recipe {recipe.name} has no second stage; give it a `finetune`.")
    return recipe.finetune
