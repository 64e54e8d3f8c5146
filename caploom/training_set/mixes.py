"""The mixes: with which probability training draws each of an image's captions. One line each in `MIXES`."""

from collections.abc import Callable, Sequence

from caploom.names import RAW_SOURCE
from caploom.training_set.settings import MixSettings

Weights = list[float]


def uniform(sources: Sequence[str], settings: MixSettings) -> Weights:
    """Each caption of an image is as likely as the next (LaCLIP)."""
    return [1 / len(sources)] * len(sources)


def raw_probability(sources: Sequence[str], settings: MixSettings) -> Weights:
    """A raw caption with probability p, else one of the captioners' (VeCLIP; Recap-DataComp-1B with p = 0.8).

    An image that has only one of the two kinds gives it all the probability.
    """
    probability = settings.raw_probability or 0.0
    raw = sum(source == RAW_SOURCE for source in sources)
    if raw in (0, len(sources)):
        return uniform(sources, settings)
    return [
        probability / raw if source == RAW_SOURCE else (1 - probability) / (len(sources) - raw) for source in sources
    ]


MIXES: dict[str, Callable[[Sequence[str], MixSettings], Weights]] = {
    "uniform": uniform,
    "raw_probability": raw_probability,
    "concatenate": uniform,  # its rows hold one caption each, so that there is nothing to draw
}
