"""Every kind of trainer by its settings. A new kind is one module and one line here."""

from pathlib import Path

from caploom.training.objective import Objective
from caploom.training.settings import BlipTrainerSettings, ClipTrainerSettings


def create_objective(
    settings: ClipTrainerSettings | BlipTrainerSettings, *, seed: int, initial: Path | None = None
) -> Objective:
    """The settings' objective, on the CPU; `initial` is a checkpoint folder that takes precedence over `pretrained`.

    Raises `TrainingError` when the model cannot be created or the weights do not fit.
    """
    if isinstance(settings, BlipTrainerSettings):
        from caploom.training.blip_objective import BlipObjective

        return BlipObjective(settings, seed=seed, initial=initial)
    from caploom.training.clip_objective import ClipObjective

    return ClipObjective(settings, seed=seed, initial=initial)
