"""The trainer that a checkpoint was made with: of a model in a file, its manifest has the content and not the path."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from caploom.config.factory_config import FactoryConfig
from caploom.reproduce.errors import NotReproducibleError
from caploom.storage.manifest import Manifest
from caploom.training.identity import trainer_identity
from caploom.training.settings import TrainerSettings

_ARCHITECTURES = Path(__file__).parents[1] / "training" / "architectures"
_CONTENT = "content:"
_TRAINER: TypeAdapter[Any] = TypeAdapter(TrainerSettings)


def rebuilt_trainer(present: FactoryConfig, like: TrainerSettings, trained: Manifest) -> TrainerSettings:
    """The trainer of a checkpoint, with the device and workers of a present one (`like`, where it is of its kind).

    Raises `NotReproducibleError` when no file at hand has the recorded architecture or weights.
    """
    wanted = trained.configuration["trainer"]
    known = [like, *present.trainers.values()]
    for each in known:
        if trainer_identity(each) == wanted:
            return each
    base = next((each for each in known if each.kind == wanted.get("kind")), None)
    for files in _files(known, wanted):
        try:
            trainer: TrainerSettings = _TRAINER.validate_python(
                {**(base.model_dump(mode="json") if base else {}), **wanted, **files}
            )
        except ValidationError:
            continue  # a file of another kind of trainer
        if trainer_identity(trainer) == wanted:
            return trainer
    raise NotReproducibleError(
        f"{trained.address}: no trainer of the YAML has the architecture or weights that it was trained with (model "
        f"{wanted.get('model')}, pretrained {wanted.get('pretrained')}); name the file in a trainer, as it was."
    )


def _files(known: list[TrainerSettings], wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every model and weights that could be the recorded ones: a name is one already, a content may be any file's."""
    models = [wanted["model"]]
    if str(wanted["model"]).startswith(_CONTENT):
        models = [*(trainer.model for trainer in known), *(file.stem for file in sorted(_ARCHITECTURES.glob("*.json")))]
    weights = [wanted["pretrained"]]
    if str(wanted["pretrained"]).startswith(_CONTENT):
        weights = [trainer.pretrained for trainer in known]
    for model in dict.fromkeys(models):
        for pretrained in dict.fromkeys(weights):
            yield {"model": model, "pretrained": pretrained}
