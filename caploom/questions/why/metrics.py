"""A measurement's figures by their usual names, and recipes ranked by one of them."""

import json
import re
from dataclasses import dataclass
from typing import Any

import duckdb

from caploom.common.settings import nearest
from caploom.errors import ConfigError

_SHORT = {"i2t": "image_to_text", "t2i": "text_to_image"}
_LOW_IS_GOOD = ("rank", "variance")
_NO_FIGURES = {"images", "captions", "folds", "classes"}


@dataclass(frozen=True)
class Rival:
    """Another recipe's newest value of the same figure."""

    recipe: str
    value: float


@dataclass(frozen=True)
class WhyFigure:
    """A figure of one measurement; recalls, chance and the 95 % interval are fractions, 0 to 1.

    `rivals` are the other recipes that were measured in the same way, the best first; `place` is this one's position
    among them, 1 the best.
    """

    name: str
    direction: str
    figure: str
    evaluation_set: str
    stage: str
    scoring: str
    value: float
    interval: tuple[float, float] | None
    chance: float | None
    rivals: tuple[Rival, ...]
    place: int

    @property
    def is_share(self) -> bool:
        """Whether it is shown in percent."""
        return "recall" in self.figure or self.figure.startswith(("top", "chance"))

    @property
    def low_is_good(self) -> bool:
        """Whether less is better."""
        return any(word in self.figure for word in _LOW_IS_GOOD)


def figures_of(
    measurements: dict[str, list[dict[str, Any]]], recipe: str, metric: str, evaluation_set: str | None
) -> list[WhyFigure]:
    """The figures of a recipe's measurements for a metric; `measurements` are those of every recipe, by its name.

    Raises `ConfigError` with the nearest names for an unknown metric or set.
    """
    ours = measurements[recipe]
    if evaluation_set is not None:
        known = sorted({found["evaluation_set"] for found in ours})
        ours = [found for found in ours if found["evaluation_set"] == evaluation_set]
        if not ours:
            raise ConfigError(
                f'{recipe} was not measured on "{evaluation_set}"; it was on: {", ".join(known)}'
                f"{nearest(evaluation_set, known)}."
            )
    wanted = _plain(metric)
    found = [(one, *names[wanted]) for one in ours if wanted in (names := _names(one))]
    if not found:
        shortest: dict[tuple[str, str], str] = {}
        for name, figure in (item for one in ours for item in _names(one).items()):
            shortest[figure] = min(shortest.get(figure, name), name, key=len)
        words = [_display(name) for name in shortest.values()]
        raise ConfigError(
            f'There is no metric "{metric}"; known: {", ".join(words)}{nearest(_display(wanted), words)}.'
        )
    return [_figure(measurements, recipe, each, direction, figure) for each, direction, figure in found]


def all_measurements(catalog: duckdb.DuckDBPyConnection) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """The newest measurements of every recipe: by its name, the artifact's address and the measurements."""
    rows = catalog.execute(
        "select name[1], address, summary::text from manifests where kind = 'retrieval_metrics' and is_latest"
        " order by 1"
    ).fetchall()
    return {name: (address, json.loads(summary).get("measurements", [])) for name, address, summary in rows}


def _figure(
    measurements: dict[str, list[dict[str, Any]]], recipe: str, ours: dict[str, Any], direction: str, figure: str
) -> WhyFigure:
    def value(measurement: dict[str, Any]) -> float | None:
        found = (measurement.get(direction) or {}) if direction else measurement
        return found.get(figure)

    same = [ours["evaluation_set"], ours["stage"], ours["scoring"]]
    rivals = [
        Rival(name, number)
        for name, each in measurements.items()
        for other in each
        if name != recipe and [other["evaluation_set"], other["stage"], other["scoring"]] == same
        if (number := value(other)) is not None
    ]
    sign = 1 if any(word in figure for word in _LOW_IS_GOOD) else -1
    rivals.sort(key=lambda rival: (sign * rival.value, rival.recipe))
    number = float(value(ours) or 0.0)
    held = ours[direction] if direction else ours
    at = figure.partition("@")[2]
    interval = held.get(f"interval@{at}") if figure == f"recall@{at}" else None
    chance_key = {"mean_recall@1": "mean_chance@1", "top1": "chance_top1"}.get(figure, f"chance@{at}")
    return WhyFigure(
        name=" ".join(part for part in (direction.replace("_", " "), figure) if part),
        direction=direction,
        figure=figure,
        evaluation_set=ours["evaluation_set"],
        stage=ours["stage"],
        scoring=ours["scoring"],
        value=number,
        interval=(interval[0], interval[1]) if interval else None,
        chance=held.get(chance_key),
        rivals=tuple(rivals),
        place=1 + sum(sign * rival.value < sign * number for rival in rivals),
    )


def _names(measurement: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Every name of a figure, with its direction ("" for both) and key in the measurement."""
    names: dict[str, tuple[str, str]] = {}
    for key, value in measurement.items():
        if _is_figure(key, value):
            names[_plain(re.sub(r"recall@(\d+)", r"r\1", key))] = ("", key)
            names[_plain(key)] = ("", key)
    for short, direction in _SHORT.items():
        for key, value in (measurement.get(direction) or {}).items():
            if _is_figure(key, value):
                if key.startswith("recall@"):
                    names[_plain(f"r{key.removeprefix('recall@')}_{short}")] = (direction, key)
                for called in (direction, short):
                    names[_plain(f"{called} {key}")] = (direction, key)
                    names[_plain(f"{key} {called}")] = (direction, key)
    return names


def _is_figure(key: str, value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and key not in _NO_FIGURES
        and "chance" not in key
    )


def _plain(metric: str) -> str:
    """A metric's name without spelling variants."""
    return re.sub(r"[\s_./:-]+", " ", metric.strip().lower())


def _display(name: str) -> str:
    return name.replace(" ", "_")
