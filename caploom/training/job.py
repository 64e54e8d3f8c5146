"""A training's job, reports and result: everything exchanged between it and its caller."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from caploom.common.hashing import fingerprint
from caploom.images.moves import STAYED, Moves
from caploom.training.identity import trainer_identity
from caploom.training.settings import TrainerSettings


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class TrainingJob(_Message):
    """One training."""

    training_set: list[Path] = Field(description="Parquet files of TRAINING_ROWS.")
    settings: TrainerSettings
    seed: int
    out: Path = Field(description="An existing folder for the checkpoint; the caller commits it.")
    state: Path | None = Field(default=None, description="Folder of the states to resume from; None writes none.")
    initial: Path | None = Field(default=None, description="Checkpoint folder to start from, as fine-tuning does.")
    resized: list[Path] = Field(default=[], description="Folders of resized images (`caploom.stages.resized_images`).")
    moves: Moves = Field(default=STAYED, description="Where the training set's images are now.")

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the weights: a state of another job is never resumed."""
        files = [(str(file), file.stat().st_size) for file in self.training_set]
        return fingerprint([files, trainer_identity(self.settings), self.seed, str(self.initial)])


class TrainingEvent(_Message):
    """A training's progress: about a hundred reports, and at least one every ten seconds.

    `loss` and its named parts `losses` are means over the steps since the last point of the curve.
    """

    step: int = Field(description="Steps done.")
    steps: int
    loss: float
    losses: dict[str, float] = {}
    learning_rate: float
    gradient_norm: float = Field(description="Before clipping, of the last step.")
    samples_per_second: float
    data_wait_share: float = Field(description="Fraction of the time since the start, 0 to 1.")
    seconds: float = Field(description="Since the first step of this process.")
    seconds_left: float = Field(description="At this process's pace.")


class TrainingResult(_Message):
    """A training's result and cost.

    `losses` has (step, mean loss since the previous point), `parts` the same for each named part of the loss.
    """

    steps: int
    samples_seen: int = Field(description="Images, without unusable ones.")
    seconds: float = Field(description="Wall-clock time, from reading the training set to the written checkpoint.")
    samples_per_second: float = Field(description="While stepping.")
    data_wait_share: float = Field(description="Fraction of the stepping time in which the device waited for data.")
    losses: list[tuple[int, float]]
    parts: dict[str, list[tuple[int, float]]] = {}
    final_loss: float
    device: str
    processes: int = 1
    threads: int | None = Field(default=None, description="Threads per process on a CPU: sums depend on their number.")
    resumed_from: int = Field(default=0, description="Steps done by an earlier process.")
    failures: dict[str, int] = Field(default={}, description="Unusable rows, by reason.")
    truncated_share: float = Field(default=0.0, description="Fraction of texts cut at the context's length.")
    notes: list[str] = Field(default=[], description="Notes for people, one sentence each.")
