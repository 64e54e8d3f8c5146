"""Loads the encoders of any kind of checkpoint."""

from pathlib import Path

from caploom.evaluation.encoders import Encoder


def load_encoder(checkpoint: Path, device: str = "auto") -> Encoder:
    """The encoders of a checkpoint folder of any kind; raises `StoreError` when it is incomplete.

    Example:
        >>> load_encoder(Path("checkpoint")).embed_texts(["a cat", "a dog"]).shape
        (2, 96)
    """
    from caploom.training.clip_model import load_checkpoint, resolve_device  # imports torch, only needed for embedding

    on = resolve_device(device)
    if (checkpoint / "blip_config.json").is_file():
        from caploom.evaluation.blip_encoder import BlipEncoder

        return BlipEncoder(checkpoint, on)
    from caploom.evaluation.embeddings import ClipEncoder

    return ClipEncoder(load_checkpoint(checkpoint), on)
