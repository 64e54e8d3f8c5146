"""The trace of an image, as text for a terminal and as Markdown for the UI."""

from collections.abc import Iterator

from caploom.common.text import markdown_line, terminal_text
from caploom.questions.trace.records import ImageTrace, TracedCaption, TracedRank, TracedShear, TracedTrainingSet


def trace_text(trace: ImageTrace) -> str:
    """The text for a terminal; parts that a shear cut off are in brackets, as [-this-]."""
    lines = [f"{trace.image}  {trace.image_id or 'never became a pair'}", *([f"  {trace.path}"] if trace.path else [])]
    for title, section in _sections(trace):
        lines += ["", title, *(f"  {line}" for line in section)]
    return "\n".join(terminal_text(line.replace(_OPEN, "[-").replace(_CLOSE, "-]")) for line in lines)


def trace_markdown(trace: ImageTrace) -> str:
    """The same as Markdown; parts that a shear cut off are struck out."""
    head = f"**{markdown_line(trace.image)}** `{trace.image_id or 'never became a pair'}`"
    lines = [head, "", markdown_line(trace.path)]
    for title, section in _sections(trace):
        lines += ["", f"**{markdown_line(title)}**", ""]
        for line in section:
            depth = (len(line) - len(line.lstrip())) // 2
            shown = map(markdown_line, _cut(line.strip()))
            parts = [f"~~{text}~~" if place % 2 else text for place, text in enumerate(shown)]
            lines.append(f"{'  ' * depth}- {''.join(parts)}")
    return "\n".join(lines)


def _sections(trace: ImageTrace) -> Iterator[tuple[str, list[str]]]:
    raw = []
    for pair in trace.pairs:
        raw += [
            _quoted(pair.caption) if pair.caption else "without a caption",
            f"  {pair.shard}, row {pair.row}; {_when(pair.started, pair.is_latest)}",
        ]
    yield "raw captions" if raw else "no raw captions: it is in no raw pairs", raw
    for captioner in dict.fromkeys(each.captioner for each in trace.captions):
        found: list[str] = []
        for caption in sorted(
            (each for each in trace.captions if each.captioner == captioner),
            key=lambda each: each.started,
            reverse=True,
        ):
            found += _caption(caption)
        yield f"captions/{captioner}", found
    for training_set in trace.training_sets:
        yield f"training_set {training_set.name}", _training_set(training_set)
    if trace.evaluation_sets:
        yield (
            f"retrieved (evaluation set {', '.join(trace.evaluation_sets)})",
            [line for rank in trace.ranks for line in _rank(rank)] or ["no recipe has been measured on it"],
        )
    if trace.failures:
        yield (
            "failures",
            [f"{row.stage}: {row.reason} (attempt {row.attempt}): {row.detail}" for row in trace.failures],
        )
    if trace.notes:
        yield "notes", list(trace.notes)


def _caption(caption: TracedCaption) -> list[str]:
    shown = _quoted(caption.text)
    tokens = f", {caption.tokens} tokens" if caption.tokens is not None else ""
    facts = f"{caption.finish_reason}{tokens}, attempt {caption.attempt}"
    lines = [shown, f"  {caption.configured}", f"  fingerprint {caption.fingerprint}; {caption.shard}; {facts}"]
    lines.append(f"  {_when(caption.started, caption.is_latest)}")
    for shear in caption.sheared:
        lines += [f"  shear {shear.steps}: {shear.source_words} to {shear.words} words", f"    {_sheared(shear)}"]
    return lines


def _training_set(training_set: TracedTrainingSet) -> list[str]:
    positions = ", ".join(f"row {row} of {file}" for file, row in training_set.rows) or "has no row of this image"
    lines = [f"{positions}; {_when(training_set.started, training_set.is_latest)}"]
    for caption in training_set.captions:
        if caption.weight is None:
            lines.append(f"  not in it  {caption.source}: {_quoted(caption.caption)}  ({caption.reason})")
        else:
            lines.append(f"  {caption.weight:.3f}  {caption.source}: {_quoted(caption.caption)}")
    return lines


def _rank(rank: TracedRank) -> list[str]:
    what = ", ".join([rank.recipe, rank.evaluation_set, rank.stage, rank.scoring])
    if rank.label is not None:
        return [f"{what}: its class {_quoted(rank.label)} at rank {rank.image_to_text}; taken for {rank.predicted}"]
    texts = [f"  text to image: rank {number} for {_quoted(caption)}" for caption, number in rank.text_to_image]
    return [f"{what}: image to text: best of its captions at rank {rank.image_to_text}", *texts]


def _sheared(shear: TracedShear) -> str:
    before, after = (f"{_OPEN}{_clean(part)}{_CLOSE}" if part.strip() else "" for part in (shear.before, shear.after))
    return f'"{before}{_clean(shear.kept)}{after}"'


# Marks cut parts until they are shown; captions cannot contain it, see `_quoted`.
_OPEN, _CLOSE = "\x02", "\x03"


def _cut(line: str) -> list[str]:
    """A line split into alternating kept and cut parts."""
    return [each for part in line.split(_OPEN) for each in part.split(_CLOSE)]


def _quoted(text: str) -> str:
    return f'"{_clean(text)}"'


def _clean(text: str) -> str:
    return text.replace(_OPEN, "").replace(_CLOSE, "")


def _when(started: str, is_latest: bool) -> str:
    return f"made {started}" + ("" if is_latest else ", an older version")
