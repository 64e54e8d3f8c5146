"""The pictures in the UI's metadata and in the report, as PNG bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which colour-blind people can distinguish too.
_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
_SIZE = (7.0, 3.2)  # inches
_DPI = 100

WordCounts = Mapping[int, int]
"""Number of words to the number of captions with that many."""


def length_histogram(raw: WordCounts, captioners: Mapping[str, tuple[WordCounts, WordCounts]], title: str) -> bytes:
    """A histogram of words per caption: raw filled, each captioner's whole (dashed) and sheared (solid)."""
    figure, axes = _figure(title)
    bins = _bins_of_words([raw, *(counts for pair in captioners.values() for counts in pair)])
    _draw_counts(axes, raw, bins, color="#BBBBBB", label="raw")
    for (name, (whole, sheared)), colour in zip(captioners.items(), _cycle(len(captioners)), strict=True):
        outline = {"histtype": "step", "linewidth": 1.4, "color": colour}
        _draw_counts(axes, whole, bins, linestyle="--", label=f"{name}, whole", **outline)
        _draw_counts(axes, sheared, bins, linestyle="-", label=f"{name}, sheared", **outline)
    axes.set_xlabel("words")
    axes.set_ylabel("captions")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return _png(figure)


def caption_length_histogram(words: WordCounts, raw_words: WordCounts, title: str) -> bytes:
    """A histogram of words per caption of one captioner, in front of the raw captions' (grey)."""
    figure, axes = _figure(title)
    bins = _bins_of_words([words, raw_words])
    _draw_counts(axes, raw_words, bins, color="#BBBBBB", label="raw")
    _draw_counts(axes, words, bins, histtype="step", linewidth=1.4, color=_COLOURS[0], label="captions")
    axes.set_xlabel("words")
    axes.set_ylabel("captions")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=7)
    return _png(figure)


def loss_curve(losses: Sequence[tuple[int, float]], title: str) -> bytes:
    """Training loss against the optimizer step."""
    figure, axes = _figure(title)
    axes.plot([step for step, _ in losses], [loss for _, loss in losses], color=_COLOURS[0], linewidth=1.6)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    return _png(figure)


def _bins_of_words(counts: Sequence[WordCounts]) -> list[float]:
    return [edge + 0.5 for edge in range(max((words for count in counts for words in count), default=1) + 2)]


def _draw_counts(axes: "Axes", counts: WordCounts, bins: list[float], **style: Any) -> None:
    axes.hist(list(counts), bins=bins, weights=list(counts.values()), **style)


def _figure(title: str) -> tuple[Any, "Axes"]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _cycle(count: int) -> list[str]:
    return [_COLOURS[number % len(_COLOURS)] for number in range(count)]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
