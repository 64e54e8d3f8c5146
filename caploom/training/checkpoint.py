"""The `checkpoint` stage: a CLIP model trained on a recipe's training set."""

from pathlib import Path
from typing import Any

from caploom.config import Recipe
from caploom.factory import Factory
from caploom.lineage.fingerprints import file_sha256
from caploom.progress import Progress
from caploom.store import Artifact, Draft, Plan
from caploom.training_set.merge import training_files, training_set_plan

KIND = "checkpoint"
CODE_VERSION = "1"
_ARCHITECTURES = Path(__file__).parent / "architectures"


def checkpoint_plan(factory: Factory, recipe: Recipe) -> Plan:
    """The plan of a recipe's checkpoint; raises `MissingArtifactError` before its training set is made."""
    training_set = factory.store.require(
        training_set_plan(factory, recipe), make_with=f"materialize training_set [{recipe.name}]"
    )
    return Plan(
        kind=KIND,
        name=(recipe.name,),
        code_version=CODE_VERSION,
        configuration={"trainer": trainer_identity(recipe), "seed": recipe.seed},
        inputs=(training_set.as_input(),),
    )


def trainer_identity(recipe: Recipe) -> dict[str, Any]:
    """All that decides what the recipe's trainer makes; of an architecture in a file, the content and not its path."""
    identity = recipe.trainer.fingerprinted()
    for file in (_ARCHITECTURES / f"{recipe.trainer.model}.json", Path(recipe.trainer.model)):
        if file.is_file():
            identity["model"] = f"content:{file_sha256(file)}"
            break
    return identity


def train_recipe(factory: Factory, recipe: Recipe, progress: Progress | None = None) -> Artifact:
    """Train a recipe's model, unless it is trained: `model.safetensors`, `open_clip_config.json`, `losses.parquet`."""
    plan = checkpoint_plan(factory, recipe)

    def build(draft: Draft) -> None:
        from caploom.training.trainer import train_clip  # torch: only where something is trained

        training_set = factory.store.require(training_set_plan(factory, recipe), make_with="merge")
        assert recipe.trainer.kind == "clip"
        result = train_clip(
            training_files(training_set), recipe.trainer, seed=recipe.seed, out=draft.folder, progress=progress
        )
        draft.device = result.device
        draft.seeds = {"training": recipe.seed}
        draft.data_version = file_sha256(draft.folder / "model.safetensors")[:16]
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
        }

    return factory.store.make(plan, build)
