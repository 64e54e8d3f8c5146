"""The report's charts, drawn with Vega-Altair as SVG: they need no script and no network, and print sharply.

Colours are Okabe and Ito's, which colour-blind people can distinguish; shapes and dashes repeat the distinction.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caploom.questions.results.results import ResultRow, percent
from caploom.questions.results.tables import Table
from caploom.report.costs import Cost

if TYPE_CHECKING:
    import altair as alt

_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A7A00"]
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-left", "triangle-right"]
_DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3], [10, 2], [3, 1]]
_WIDTH, _HEIGHT = 560, 300  # pixels
_LABEL = 220  # maximum width of a recipe's name in pixels
MOST_CURVES = 12


@dataclass(frozen=True)
class Chart:
    """A chart: its file name, a sentence about it, its drawing, and its figures as a table."""

    name: str
    title: str
    svg: str
    table: Table


def recall_chart(rows: Sequence[ResultRow], name: str) -> Chart:
    """Mean Recall@1 of each recipe, best first, with the spread over its seeds, and chance as a line."""
    import altair as alt

    data = [
        {
            "recipe": row.recipe,
            "recall": 100 * row.mean_recall_at_1,
            "low": 100 * (row.mean_recall_at_1 - (row.spread or 0)),
            "high": 100 * (row.mean_recall_at_1 + (row.spread or 0)),
        }
        for row in rows
    ]
    order = [row.recipe for row in rows]
    recipes = alt.Y("recipe:N", sort=order, title=None, axis=alt.Axis(labelLimit=_LABEL))
    base = alt.Chart(_values(data)).encode(y=recipes)
    bars = base.mark_bar(color=_COLOURS[0], height={"band": 0.6}).encode(x=alt.X("recall:Q", title="mean Recall@1 (%)"))
    spreads = base.mark_rule(color="black", strokeWidth=2).encode(x="low:Q", x2="high:Q")
    chance = alt.Chart(_values([{"chance": 100 * rows[0].mean_chance_at_1}]))
    line = chance.mark_rule(color="#555555", strokeDash=[4, 4]).encode(x="chance:Q")
    title = f"Mean Recall@1 on {rows[0].label} (dashed: chance; line: one standard deviation over seeds)"
    table = [["recipe", "mean R@1, %", "sd over seeds"]]
    table += [[row.recipe, percent(row.mean_recall_at_1), percent(row.spread)] for row in rows]
    return _chart(name, title, bars + spreads + line, table, height=max(60, 28 * len(rows)))


def curves_chart(curves: Mapping[str, Sequence[float]], chance: Sequence[float], direction: str, name: str) -> Chart:
    """Recall@K against K, one line per recipe: `curves` and `chance` are the recalls for K = 1, 2, ..."""
    import altair as alt

    shown = dict(list(curves.items())[:MOST_CURVES])
    data = [
        {"recipe": recipe, "K": k, "recall": 100 * value}
        for recipe, values in {**shown, "(chance)": chance}.items()
        for k, value in enumerate(values, start=1)
    ]
    names = [*shown, "(chance)"]
    colours = [*(_COLOURS[index % len(_COLOURS)] for index in range(len(shown))), "#777777"]
    dashes = [*(_DASHES[index % len(_DASHES)] for index in range(len(shown))), [1, 3]]
    legend = alt.Legend(title=None, labelLimit=_LABEL, symbolSize=400)
    chart = (
        alt.Chart(_values(data))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("K:Q", scale=alt.Scale(type="log", nice=False), title="K"),
            y=alt.Y("recall:Q", title=f"Recall@K, {direction} (%)", scale=alt.Scale(domain=[0, 100])),
            color=alt.Color("recipe:N", sort=names, scale=alt.Scale(domain=names, range=colours), legend=legend),
            strokeDash=alt.StrokeDash("recipe:N", sort=names, scale=alt.Scale(domain=names, range=dashes)),
        )
    )
    at = [k for k in (1, 2, 5, 10, 20, 50, 100) if k <= len(chance)]
    table = [["recipe", *(f"R@{k}" for k in at)]]
    table += [
        [recipe, *(percent(values[k - 1]) for k in at)] for recipe, values in {**curves, "(chance)": chance}.items()
    ]
    left_out = f", the first {MOST_CURVES} of {len(curves)}" if len(curves) > len(shown) else ""
    return _chart(name, f"Recall@K, {direction}{left_out}", chart, table)


def captioners_chart(points: Sequence[tuple[str, str, int, float]], name: str) -> Chart:
    """Number of captioners against mean Recall@1, a line per family: points are (family, recipe, captioners, share)."""
    import altair as alt

    families = list(dict.fromkeys(family for family, *_ in points))
    data = [{"family": f, "recipe": r, "captioners": n, "recall": 100 * share} for f, r, n, share in points]
    x = alt.X("captioners:Q", title="captioners", axis=alt.Axis(tickMinStep=1, format="d"))
    chart = _lines(data, families, x)
    table = [["family", "recipe", "captioners", "mean R@1, %"]]
    table += [[family, recipe, str(n), percent(share)] for family, recipe, n, share in points]
    return _chart(name, "Number of captioners against mean Recall@1", chart, table)


def lengths_chart(points: Sequence[tuple[str, float, float]], name: str) -> Chart:
    """Mean words of a training set's captions against mean Recall@1: points are (recipe, words, share)."""
    import altair as alt

    data = [{"recipe": recipe, "words": words, "recall": 100 * share} for recipe, words, share in points]
    base = alt.Chart(_values(data)).encode(
        x=alt.X(
            "words:Q", title="mean words of a caption of the training set", scale=alt.Scale(zero=False, padding=30)
        ),
        y=alt.Y("recall:Q", title="mean Recall@1 (%)"),
    )
    chart = base.mark_point(size=90, filled=True, color=_COLOURS[0]) + _names(base)
    table = [["recipe", "mean words", "mean R@1, %"]]
    table += [[recipe, f"{words:.1f}", percent(share)] for recipe, words, share in points]
    return _chart(name, "Caption length against mean Recall@1", chart, table)


def pareto_chart(costs: Sequence[Cost], name: str) -> Chart:
    """Seconds of captioning and training together against mean Recall@1; the frontier is filled and joined."""
    import altair as alt

    data = [
        {"recipe": c.recipe, "seconds": max(c.seconds, 0.01), "recall": 100 * c.mean_recall_at_1, "best": c.on_frontier}
        for c in costs
    ]
    x = alt.X("seconds:Q", title="seconds of captioning and training", scale=alt.Scale(zero=False, padding=30))
    base = alt.Chart(_values(data)).encode(x=x, y=alt.Y("recall:Q", title="mean Recall@1 (%)"))
    frontier = base.transform_filter("datum.best").mark_line(color=_COLOURS[1], interpolate="step-after", strokeWidth=2)
    points = base.mark_point(size=90, strokeWidth=2, color="#333333").encode(
        fill=alt.condition("datum.best", alt.value(_COLOURS[1]), alt.value("white")),
        shape=alt.condition("datum.best", alt.value("circle"), alt.value("square")),
    )
    chart = frontier + points + _names(base)
    table = [["recipe", "seconds", "mean R@1, %", "on the frontier"]]
    table += [
        [c.recipe, f"{c.seconds:.0f}", percent(c.mean_recall_at_1), "yes" if c.on_frontier else ""] for c in costs
    ]
    return _chart(name, "Cost against mean Recall@1 (filled: no recipe reaches as much at lower cost)", chart, table)


def versions_chart(points: Sequence[tuple[str, int, int, float]], label: str, name: str) -> Chart:
    """Images of the training set against mean Recall@1: points are (recipe, version, images, share), in order."""
    import altair as alt

    recipes = list(dict.fromkeys(recipe for recipe, *_ in points))
    shown = recipes[:MOST_CURVES]
    data = [{"family": r, "images": n, "recall": 100 * share} for r, _, n, share in points if r in shown]
    x = alt.X("images:Q", title="images of the training set", scale=alt.Scale(zero=False, padding=30))
    chart = _lines(data, shown, x)
    table = [["recipe", "version", "images", "mean R@1, %"]]
    table += [[recipe, str(number), f"{images:,}", percent(share)] for recipe, number, images, share in points]
    left_out = f", the first {MOST_CURVES} of {len(recipes)} recipes" if len(recipes) > len(shown) else ""
    return _chart(name, f"Training images against mean Recall@1 on {label}{left_out}", chart, table)


def _lines(data: list[dict[str, Any]], families: Sequence[str], x: "alt.X") -> Any:
    import altair as alt

    count = len(families)
    domain: Any = list(families)
    legend = alt.Legend(title=None, labelLimit=_LABEL, symbolSize=200)
    base = alt.Chart(_values(data)).encode(
        x=x,
        y=alt.Y("recall:Q", title="mean Recall@1 (%)"),
        color=alt.Color(
            "family:N", sort=domain, scale=alt.Scale(domain=domain, range=_cycled(_COLOURS, count)), legend=legend
        ),
    )
    lines = base.mark_line(strokeWidth=2).encode(
        strokeDash=alt.StrokeDash(
            "family:N", scale=alt.Scale(domain=domain, range=_cycled(_DASHES, count)), legend=None
        )
    )
    shapes = alt.Shape("family:N", scale=alt.Scale(domain=domain, range=_cycled(_SHAPES, count)), legend=None)
    return lines + base.mark_point(size=80, filled=True).encode(shape=shapes)


def _names(base: Any) -> Any:
    return base.mark_text(align="left", dx=9, dy=-7, fontSize=11, limit=_LABEL).encode(text="recipe:N")


def _cycled(values: Sequence[Any], count: int) -> list[Any]:
    return [values[index % len(values)] for index in range(count)]


def _values(data: Sequence[Mapping[str, Any]]) -> Any:
    import altair as alt

    return alt.Data(values=list(data))


def _chart(name: str, title: str, drawing: Any, table: Table, *, height: int = _HEIGHT) -> Chart:
    """The chart; the drawing's internal references have names for this chart, since a page has many charts."""
    import vl_convert

    sized = drawing.properties(width=_WIDTH, height=height)
    styled = sized.configure_view(stroke=None).configure_axis(gridColor="#E4E4E4", labelFontSize=12, titleFontSize=12)
    drawn = vl_convert.vegalite_to_svg(styled.configure_legend(labelFontSize=12).to_dict())
    return Chart(name, title, re.sub(r"(id=\"|url\(#)", rf"\g<1>{name}-", str(drawn)), table)
