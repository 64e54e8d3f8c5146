"""A line of a cost plan: one kind of work, how much of it is to do and how long that takes."""

from dataclasses import dataclass
from typing import Any

from caploom.questions.cost.rates import Rate


@dataclass(frozen=True)
class CostItem:
    """One kind of work.

    Attributes:
        stage: the kind of artifact that it makes.
        verb: what a run does to make one, in a word.
        name: which captioner, shear, trainer or evaluation sets.
        to_do: artifacts that are to be made.
        done: artifacts that are made already and will be found.
        units: what the artifacts to do hold: captions to generate, samples to train on.
        unit: what a unit is.
        exact: whether `units` is certain; False where it is the most that can come.
        rate: how fast it was measured to go; None where it never was, or nothing is to do.
        shared_by: recipes (of a training set: trainings) that use the same work, which is done once.
        steps: optimizer steps, of trainings.
    """

    stage: str
    verb: str
    name: str
    to_do: int
    done: int
    units: int
    unit: str
    exact: bool = True
    rate: Rate | None = None
    shared_by: int = 0
    steps: int = 0

    @property
    def seconds(self) -> float | None:
        """How long it takes; None where no rate was ever measured."""
        if not self.to_do:
            return 0.0
        if self.rate is None:
            return None if self.units else 0.0
        return self.rate.seconds(self.units, self.to_do)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "stage": self.stage,
            "name": self.name,
            "to_do": self.to_do,
            "done": self.done,
            "units": self.units,
            "unit": self.unit,
            "units_are_exact": self.exact,
            "steps": self.steps,
            "shared_by": self.shared_by,
            "rate": self.rate.to_dict() if self.rate is not None else None,
            "seconds": round(self.seconds, 1) if self.seconds is not None else None,
        }
