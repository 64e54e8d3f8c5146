"""The answer of `why`, as text for a terminal and as Markdown for the UI."""

from collections.abc import Sequence

from caploom.common.text import counted, markdown_line, seconds_text, terminal_text
from caploom.questions.why.metrics import WhyFigure
from caploom.questions.why.training import WhySource, WhyTraining, WhyTrainingSet
from caploom.questions.why.why_metric import Why

_PLAIN = ("zero-shot", "cosine")
_HEAD = (
    "source", "captions", "share", "of the samples", "images without", "words before", "words after", "cut", "captioner"
)  # fmt: skip
_NEAR = 3  # number of rivals that are named


def why_text(why: Why) -> str:
    """For a terminal."""
    lines = [*_headline(why), ""]
    for training in why.training:
        lines += [f"from {training.address}", *(f"  {line}" for line in _training_lines(training)), ""]
    if why.training_set is not None:
        rows = [list(_HEAD), *(_source_cells(source) for source in why.training_set.sources)]
        lines += [f"from {why.training_set.address}", *(f"  {line}" for line in _set_lines(why.training_set)), ""]
        lines += [*(f"  {line}" for line in _columns(rows)), "", "its first rows"]
        for row in why.training_set.rows:
            lines.append(f"  {row['image']}  {row['image_id'][:12]}")
            lines += [f"    {each['weight']:.3f}  {each['source']}: {each['caption']}" for each in row["captions"]]
    lines += ["", *_warnings(why)] if _warnings(why) else []
    return "\n".join(terminal_text(line) for line in lines)


def why_markdown(why: Why) -> str:
    """The same as Markdown; captions and file names are shown as text, whatever is in them."""
    lines = [f"{markdown_line(line)}  " for line in _headline(why)]
    for training in why.training:
        lines += ["", f"**From `{training.address}`**", ""]
        lines += [f"- {markdown_line(line)}" for line in _training_lines(training)]
    if why.training_set is not None:
        lines += ["", f"**From `{why.training_set.address}`**", ""]
        lines += [f"- {markdown_line(line)}" for line in _set_lines(why.training_set)]
        lines += ["", _markdown_row(_HEAD), "|" + " --- |" * len(_HEAD)]
        lines += [_markdown_row(_source_cells(source)) for source in why.training_set.sources]
        lines += ["", "**Its first rows**", "", "| image | weight | source | caption |", "| --- | --- | --- | --- |"]
        for row in why.training_set.rows:
            for each in row["captions"]:
                lines.append(_markdown_row([row["image"], f"{each['weight']:.3f}", each["source"], each["caption"]]))
    warnings = _warnings(why)
    lines += ["", *(f"- {markdown_line(line)}" for line in warnings)] if warnings else []
    return "\n".join(lines)


def _headline(why: Why) -> list[str]:
    lines = []
    for figure in why.figures:
        kind = [each for each in (figure.stage, figure.scoring) if each not in _PLAIN]
        where = ", ".join([figure.evaluation_set, *kind])
        interval = ""
        if figure.interval is not None:
            low, high = (_value(figure, bound) for bound in figure.interval)
            interval = f", 95 % interval {low} to {high}"
        chance = f", chance {_value(figure, figure.chance)}" if figure.chance is not None else ""
        lines.append(f"{why.recipe}: {figure.name} {_value(figure, figure.value)} on {where}{interval}{chance}")
        lines.append(f"  {_standing(figure)}")
    return [*lines, f"measured {why.measured}: {why.address}"]


def _standing(figure: WhyFigure) -> str:
    if not figure.rivals:
        return "no other recipe was measured in the same way"
    named = figure.rivals if len(figure.rivals) <= _NEAR else [*figure.rivals[: _NEAR - 1], figure.rivals[-1]]
    others = ", ".join(f"{rival.recipe} {_value(figure, rival.value)}" for rival in named)
    more = f" and {len(figure.rivals) - len(named)} between" if len(figure.rivals) > len(named) else ""
    order = ", less is better" if figure.low_is_good else ""
    return f"place {figure.place} of {len(figure.rivals) + 1} recipes{order}; the others: {others}{more}"


def _training_lines(training: WhyTraining) -> list[str]:
    figures = [
        counted(training.steps, "steps") if training.steps is not None else "",
        f"{training.samples:,} samples" if training.samples is not None else "",
        f"in {seconds_text(training.seconds)} on {training.device}" if training.seconds is not None else "",
        f"final loss {training.final_loss:.4f}" if training.final_loss is not None else "",
    ]
    shown = ", ".join(figure for figure in figures if figure)
    return [f"{training.stage}: {training.configured}", *([shown] if shown else []), f"made {training.started}"]


def _set_lines(training_set: WhyTrainingSet) -> list[str]:
    dropped = ", ".join(f"{reason} {number:,}" for reason, number in training_set.dropped.items())
    lost = training_set.captions_in - training_set.captions
    return [
        f"{counted(training_set.images, 'images')}, {counted(training_set.captions, 'captions')}, made "
        f"{training_set.started}",
        f"{training_set.mix}; {training_set.filters}; shear: {training_set.shear}",
        f"{lost:,} of {training_set.captions_in:,} captions dropped" + (f": {dropped}" if dropped else ""),
    ]


def _source_cells(source: WhySource) -> list[str]:
    return [
        source.source,
        f"{source.captions:,}",
        f"{100 * source.captions_share:.1f} %",
        f"{100 * source.samples_share:.1f} %",
        f"{source.images_lacking:,}" if source.images_lacking is not None else "",
        _number(source.words_before),
        _number(source.words_after if source.words_after is not None else source.words_in_training),
        f"{100 * source.share_cut:.1f} %" if source.share_cut is not None else "",
        source.configured,
    ]


def _warnings(why: Why) -> list[str]:
    return [*(f"missing: {each}" for each in why.missing), *(f"newer: {each}" for each in why.newer)]


def _value(figure: WhyFigure, value: float) -> str:
    return f"{100 * value:.2f} %" if figure.is_share else f"{value:,.2f}"


def _number(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else ""


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns; the first and last are words, the others numbers."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]) - 1)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)),
                row[-1],
            ]
        ).rstrip()
        for row in rows
    ]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(markdown_line(cell) for cell in cells) + " |"
