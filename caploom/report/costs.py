"""Each recipe's cost and gain, and which recipes no other beats in both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from caploom.questions.results.arms import Arm


@dataclass(frozen=True)
class Cost:
    """A recipe's cost and gain; seconds are means over its seeds, and for captions as if no other recipe shared them.

    `on_frontier`: no other recipe reached as much at lower cost.
    """

    recipe: str
    caption_seconds: float
    training_seconds: float
    mean_recall_at_1: float
    gain: float
    on_frontier: bool

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.caption_seconds + self.training_seconds


def costs(arms: Mapping[str, Sequence[Arm]], recalls: Mapping[str, float]) -> list[Cost]:
    """In the recipes' order; the gain is over the cheapest recipe."""
    spent = {
        name: (fmean(arm.caption_seconds for arm in seeds), fmean(arm.training_seconds for arm in seeds))
        for name, seeds in arms.items()
        if name in recalls
    }
    cheapest = min(spent, key=lambda name: (sum(spent[name]), name))
    return [
        Cost(
            recipe=name,
            caption_seconds=captions,
            training_seconds=training,
            mean_recall_at_1=recalls[name],
            gain=recalls[name] - recalls[cheapest],
            on_frontier=not any(
                sum(spent[other]) <= captions + training
                and recalls[other] >= recalls[name]
                and (sum(spent[other]), recalls[other]) != (captions + training, recalls[name])
                for other in spent
            ),
        )
        for name, (captions, training) in spent.items()
    ]
