"""The pictures in the UI's metadata, as PNG bytes: drawn with Vega-Altair, like the report's charts."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

# Okabe and Ito's palette, which colour-blind people can distinguish too.
_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
_RAW = "#BBBBBB"
_WIDTH, _HEIGHT = 480, 220  # pixels of the plot itself
_SCALE = 1.4

WordCounts = Mapping[int, int]
"""Number of words to the number of captions with that many."""

_Outline = tuple[str, WordCounts, str, bool]
"""A series' name, its counts, its colour, and whether its line is dashed."""


def length_histogram(raw: WordCounts, captioners: Mapping[str, tuple[WordCounts, WordCounts]], title: str) -> bytes:
    """A histogram of words per caption: raw filled, each captioner's whole (dashed) and sheared (solid)."""
    outlines = []
    for (name, (whole, sheared)), colour in zip(captioners.items(), cycle(_COLOURS), strict=False):
        outlines += [(f"{name}, whole", whole, colour, True), (f"{name}, sheared", sheared, colour, False)]
    return _histogram(raw, outlines, title)


def caption_length_histogram(words: WordCounts, raw_words: WordCounts, title: str) -> bytes:
    """A histogram of words per caption of one captioner, in front of the raw captions' (grey)."""
    return _histogram(raw_words, [("captions", words, _COLOURS[0], False)], title)


def loss_curve(losses: Sequence[tuple[int, float]], title: str) -> bytes:
    """Training loss against the optimizer step."""
    import altair as alt

    data = alt.Data(values=[{"step": step, "loss": loss} for step, loss in losses])
    loss_axis = alt.Y("loss:Q", scale=alt.Scale(zero=False))
    return _png(alt.Chart(data).mark_line(color=_COLOURS[0]).encode(x="step:Q", y=loss_axis), title)


def _histogram(raw: WordCounts, outlines: Sequence[_Outline], title: str) -> bytes:
    import altair as alt

    series: list[_Outline] = [("raw", raw, _RAW, False), *outlines]
    longest = max((words for _, counts, _, _ in series for words in counts), default=1) + 1
    names = [name for name, _, _, _ in series]
    colours = alt.Scale(domain=names, range=[colour for _, _, colour, _ in series])
    dashes = alt.Scale(domain=names, range=[[5, 3] if dashed else [1, 0] for _, _, _, dashed in series])

    legend = alt.Legend(symbolType="stroke", symbolStrokeWidth=3, labelLimit=220)

    def drawn(of: Sequence[_Outline]) -> Any:
        rows = [
            {"series": name, "words": words, "captions": counts.get(words, 0)}
            for name, counts, _, _ in of
            for words in range(longest + 1)
        ]
        return alt.Chart(alt.Data(values=rows)).encode(
            x=alt.X("words:Q", axis=alt.Axis(format="d", tickMinStep=1)),
            y=alt.Y("captions:Q", axis=alt.Axis(format=",d", tickMinStep=1)),
            color=alt.Color("series:N", scale=colours, title=None, legend=legend),
        )

    filled = drawn(series[:1]).mark_area(interpolate="step")
    dashed = alt.StrokeDash("series:N", scale=dashes, title=None, legend=legend)
    lines = drawn(outlines).mark_line(interpolate="step", strokeWidth=1.6).encode(strokeDash=dashed)
    return _png(filled + lines, title)


def _png(drawing: Any, title: str) -> bytes:
    import vl_convert

    sized = drawing.properties(width=_WIDTH, height=_HEIGHT, title=title).configure_view(stroke=None)
    return bytes(vl_convert.vegalite_to_png(sized.configure_axis(gridColor="#E4E4E4").to_dict(), scale=_SCALE))
