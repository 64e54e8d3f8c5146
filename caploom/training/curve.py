"""A training's loss curve and clock: values on the device, and when they are read and reported."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pyarrow as pa
import torch

from caploom.storage.records import schema_of
from caploom.training.job import TrainingEvent

LOSSES_FILE = "losses.parquet"
LOSSES = schema_of(
    step=pa.int64(),
    loss=pa.float64(),  # mean over the steps since the previous row
    learning_rate=pa.float64(),  # of that step
    gradient_norm=pa.float64(),  # of that step, before clipping
    parts=pa.map_(pa.string(), pa.float64()),  # of the loss, by their names
)

_POINTS = 100
_SILENCE = 10.0  # seconds at most between two reports

_Value = TypeVar("_Value")


class Curve:
    """Points at about a hundred steps, independent of interruptions of the training."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._spacing = max(1, steps // _POINTS)
        self.points: list[dict[str, Any]] = []
        # Kept on the device until a point is due: reading each step's loss would stall a GPU.
        self._pending: list[dict[str, torch.Tensor]] = []
        self._norm: torch.Tensor = torch.zeros(())
        self._rate = 0.0
        self.waited = 0.0  # seconds
        self.known = 0  # the last step whose loss was seen before the newest event
        self._done = 0
        self.start()

    def start(self) -> None:
        """Start the clock."""
        self._started = self._said = time.perf_counter()
        self._seen = self.points[-1]["step"] if self.points else 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def timed(self, wait: Callable[[], _Value]) -> _Value:
        """Wait for data, and measure how long."""
        asked = time.perf_counter()
        value = wait()
        self.waited += time.perf_counter() - asked
        return value

    def add(self, losses: Mapping[str, torch.Tensor], norm: torch.Tensor, rate: float) -> None:
        """Record a step's losses, the norm of its gradients and its learning rate."""
        self._pending.append(dict(losses))
        self._norm, self._rate = norm, rate
        self._done += 1

    def due(self, step: int) -> bool:
        """Whether a report is due after this many steps."""
        return self._is_point(step) or time.perf_counter() - self._said >= _SILENCE

    def event(self, step: int, batch_size: int) -> TrainingEvent:
        """The report, with the curve's next point where one is due."""
        names = self._pending[-1]
        means = {name: torch.stack([each[name].cpu() for each in self._pending]).mean().item() for name in names}
        event = TrainingEvent(
            step=step,
            steps=self._steps,
            loss=means["loss"],
            losses={name: value for name, value in means.items() if name != "loss"},
            learning_rate=self._rate,
            gradient_norm=float(self._norm),
            samples_per_second=self._done * batch_size / self.seconds,
            data_wait_share=self.waited / self.seconds,
            seconds=self.seconds,
            seconds_left=(self._steps - step) * self.seconds / self._done,
        )
        self._said = time.perf_counter()
        self.known, self._seen = self._seen, step
        if self._is_point(step):
            self.points.append(
                {
                    "step": step,
                    "loss": event.loss,
                    "learning_rate": event.learning_rate,
                    "gradient_norm": event.gradient_norm,
                    "parts": list(event.losses.items()),
                }
            )
            self._pending = []
        return event

    def state(self) -> dict[str, Any]:
        """The points, and the steps recorded since the last one, as JSON values."""
        pending = [{name: float(value) for name, value in losses.items()} for losses in self._pending]
        return {"points": self.points, "pending": pending}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        # A map's entries are pairs, which JSON turned into lists.
        self.points = [{**point, "parts": [tuple(part) for part in point["parts"]]} for point in state["points"]]
        self._pending = [{name: torch.tensor(value) for name, value in each.items()} for each in state["pending"]]

    def losses(self) -> list[tuple[int, float]]:
        """The (step, loss) pairs of all points."""
        return [(point["step"], point["loss"]) for point in self.points]

    def parts(self) -> dict[str, list[tuple[int, float]]]:
        """The same for each named part of the loss."""
        parts: dict[str, list[tuple[int, float]]] = {}
        for point in self.points:
            for name, value in point["parts"]:
                parts.setdefault(name, []).append((point["step"], value))
        return parts

    def _is_point(self, step: int) -> bool:
        return step % self._spacing == 0 or step == self._steps
