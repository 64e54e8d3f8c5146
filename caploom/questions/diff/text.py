"""The differences of two recipes or artifacts, for a terminal and as Markdown."""

from collections.abc import Callable, Sequence

from caploom.common.changes import Change, cut
from caploom.common.text import markdown_text, printable
from caploom.questions.diff.differences import Differences, MetricDifference, StageDifference
from caploom.questions.diff.rows import RowDifferences
from caploom.questions.results.tables import markdown_table
from caploom.stages.artifact_names import label_of

_LONGEST = 120  # characters of a caption in a terminal


def differences_text(found: Differences) -> str:
    """The text for a terminal, which captions and names cannot control."""
    blocks = [f"{found.first} and {found.second}"]
    for stage in found.stages:
        lines = [f"{stage.kind}: {_headline(stage)}"]
        lines += [f"  {sentence}" for sentence in _sentences(stage)]
        if stage.rows is not None:
            for image, source, first, second in stage.rows.examples:
                lines.append(f"  {image[:12]} {source}")
                lines += [f"    - {cut(first, _LONGEST)}", f"    + {cut(second, _LONGEST)}"]
        if stage.metrics:
            lines += [f"  {line}" for line in markdown_table(_metric_rows(stage.metrics, found)).splitlines()]
        blocks.append("\n".join(lines))
    blocks += found.notes
    return "\n\n".join("\n".join(printable(line) for line in block.split("\n")) for block in blocks)


def differences_markdown(found: Differences) -> str:
    """As Markdown: captions and names are text, whatever is in them."""
    blocks = [f"# {markdown_text(found.first)} and {markdown_text(found.second)}"]
    for stage in found.stages:
        blocks.append(f"## {markdown_text(stage.kind)}")
        blocks.append(f"{markdown_text(_headline(stage))}")
        sentences = _sentences(stage)
        if sentences:
            blocks.append("\n".join(f"- {markdown_text(sentence)}" for sentence in sentences))
        if stage.rows is not None and stage.rows.examples:
            rows = [[image[:12], source, first, second] for image, source, first, second in stage.rows.examples]
            blocks.append(_table([["image", "source", found.first, found.second], *rows], markdown_text))
        if stage.metrics:
            blocks.append(_table(_metric_rows(stage.metrics, found), markdown_text))
    blocks += [markdown_text(note) for note in found.notes]
    return "\n\n".join(blocks) + "\n"


def _headline(stage: StageDifference) -> str:
    if stage.first == stage.second:
        return f"the same artifact, {stage.first}"
    content = "the same content" if stage.same_content else "other content"
    return f"{content}; {stage.first} and {stage.second}"


def _sentences(stage: StageDifference) -> list[str]:
    if stage.first == stage.second:
        return []
    sentences = [change.text for change in stage.configuration]
    sentences += [change.text for change in stage.code]
    sentences += _input_sentences(stage.inputs)
    sentences += [f"rows: {change.text}" for change in stage.counts]
    if stage.rows is not None:
        sentences.append(_row_sentence(stage.rows))
    first, second = stage.seconds
    sentences.append(f"made in {first:,.1f} s and in {second:,.1f} s")
    return sentences


def _input_sentences(inputs: Sequence[Change]) -> list[str]:
    """One sentence for all shards of an input with the same change."""
    alike: dict[tuple[str, str], list[Change]] = {}
    for change in inputs:
        fate = "only in the first" if change.after is None else "only in the second" if change.before is None else ""
        alike.setdefault((change.key.split(" [")[0], fate or "has other content"), []).append(change)
    return [
        f"input {changes[0].key if len(changes) == 1 else f'{name} ({len(changes):,} of them)'}: {fate}"
        for (name, fate), changes in alike.items()
    ]


def _row_sentence(rows: RowDifferences) -> str:
    return (
        f"captions by image and source: {rows.equal:,} equal, {rows.changed:,} changed, "
        f"{rows.only_first:,} only in the first, {rows.only_second:,} only in the second"
    )


def _metric_rows(metrics: Sequence[MetricDifference], found: Differences) -> list[list[str]]:
    rows = [["measured", "recall", _short(found.first), _short(found.second), "difference", "95 % interval", "p"]]
    for metric in metrics:
        low, high = (100 * bound for bound in metric.interval)
        measured = ", ".join([metric.evaluation_set, metric.stage, metric.scoring])
        p_value = "< 0.0001" if metric.p_value < 0.0001 else f"{metric.p_value:.4f}"
        numbers = [f"{100 * metric.first:.2f}", f"{100 * metric.second:.2f}", f"{100 * metric.difference:+.2f}"]
        recall = f"{metric.direction.replace('_', ' ')} R@{metric.k}"
        rows.append([measured, recall, *numbers, f"{low:+.2f} to {high:+.2f}", p_value])
    return rows


def _short(name: str) -> str:
    return label_of(name) if name.count("/") > 1 else name


def _table(rows: Sequence[Sequence[str]], escape: Callable[[str], str]) -> str:
    return markdown_table([[escape(cell) for cell in row] for row in rows])
