"""What both sides of the training benchmark share: the cores they get, and how what they learned is measured."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LearningSettings:
    """How both sides train on the scenes."""

    model: str = "picture-book"
    batch_size: int = 128
    epochs: int = 6
    learning_rate: float = 2e-3
    warmup_steps: int = 20

    def steps(self, rows: int) -> int:
        """Of all epochs over so many rows."""
        return self.epochs * (rows // self.batch_size)

    def warmup(self, rows: int) -> int:
        """Steps of the warm-up: few scenes have fewer steps than a whole one."""
        return min(self.warmup_steps, self.steps(rows) // 3)


LEARNING = LearningSettings()


def on_cores(count: int) -> None:
    """Keep this process, and what it starts, on so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def measured_recall(
    folder: Path, *, checkpoint: Path | None = None, weights: Path | None = None
) -> tuple[float, float]:
    """Mean Recall@1 of both directions and its chance level, of a checkpoint or of a file of the peer's weights."""
    import open_clip

    from caploom.evaluation.evaluate import evaluate_encoder
    from caploom.evaluation.load_encoder import load_encoder
    from caploom.training.clip_model import create_clip_model, save_checkpoint

    with tempfile.TemporaryDirectory() as scratch:
        if checkpoint is None:
            model = create_clip_model(LEARNING.model, seed=0)
            open_clip.load_checkpoint(model.network, str(weights))
            checkpoint = Path(scratch)
            save_checkpoint(model, checkpoint)
        encoder = load_encoder(checkpoint, "cpu")
        metrics = evaluate_encoder(encoder, folder / "evaluation.parquet", out=Path(scratch))
    (measured,) = metrics.values()
    return measured.mean_recall_at_1, measured.mean_chance_at_1
