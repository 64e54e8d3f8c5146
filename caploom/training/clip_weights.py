"""The weights that a CLIP model starts from."""

from caploom.errors import TrainingError
from caploom.training.clip_model import ClipModel, create_clip_model


def start_model(model: str, pretrained: str | None, *, seed: int, logit_bias: bool = False) -> ClipModel:
    """A model of the architecture that `model` names, untrained or with the weights that `pretrained` names."""
    if pretrained is not None:
        raise TrainingError(f"{pretrained}: weights to start from cannot be read yet; leave `pretrained` out.")
    return create_clip_model(model, seed=seed, logit_bias=logit_bias)
