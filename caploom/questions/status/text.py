"""The status of a factory in words: slots that stand alike are one line, whether they are four or a thousand."""

from collections.abc import Sequence

from caploom.common.text import markdown_rows, markdown_text, printable
from caploom.questions.status.slots import FactoryStatus, Slot, State

_NAMED = 4  # partitions that a line names
_WORDS = {State.STALE: "stale", State.OUTDATED: "outdated", State.MISSING: "missing", State.CURRENT: "current"}


def status_text(status: FactoryStatus, *, everything: bool = False) -> str:
    """For a terminal: a line a group of slots, a line below it for each further cause, and a summary."""
    lines = []
    for slots in grouped(status, everything=everything):
        first, *others = _causes(slots) or [""]
        lines.append(f"{_who(slots)} {_WORDS[slots[0].state]}{': ' if first else ''}{first}")
        lines += [f"    {cause}" for cause in others]
    lines += [f"damaged: {printable(problem)}" for problem in status.damaged]
    return "\n".join([*lines, summary(status)])


def status_markdown(status: FactoryStatus) -> str:
    """The same as Markdown: a table, and the summary."""
    rows = []
    for slots in grouped(status):
        causes = "<br>".join(markdown_text(cause) for cause in _causes(slots))
        rows.append([markdown_text(_who(slots)), _WORDS[slots[0].state], causes])
    table = [*markdown_rows(["what", "is", "because"], rows), ""] if rows else []
    damaged = [f"- damaged: {markdown_text(problem)}" for problem in status.damaged]
    return "\n".join([*table, *damaged, *([""] if damaged else []), f"**{markdown_text(summary(status))}**"])


def summary(status: FactoryStatus) -> str:
    """One sentence."""
    same = sum(slot.same_content for slot in status.slots)
    note = (
        f" Of the current ones, {same:,} are current by content: an input was rebuilt with identical content, so a new "
        "run would give the same result under another address."
        if same
        else ""
    )
    if status.is_current:
        return f"Everything is current.{note}"
    counts = status.counts()
    parts = [f"{counts[state.value]:,} {_WORDS[state]}" for state in _WORDS if counts[state.value]]
    return f"{len(status.slots):,} slots: {', '.join(parts)}.{note}"


def grouped(status: FactoryStatus, *, everything: bool = False) -> list[list[Slot]]:
    """Slots of one asset that stand alike for the same reasons, in the order of the first of each."""
    groups: dict[tuple[object, ...], list[Slot]] = {}
    for slot in status.slots:
        if everything or slot.state is not State.CURRENT:
            causes = tuple(cause.text_in(slot.partition) for cause in slot.causes)
            groups.setdefault((slot.asset, slot.state, causes), []).append(slot)
    return list(groups.values())


def _who(slots: Sequence[Slot]) -> str:
    if len(slots) == 1:
        return slots[0].label
    names = [str(slot.partition) for slot in slots]
    if len(names) <= _NAMED:
        return f"{slots[0].asset} [{', '.join(names)}]"
    return f"{slots[0].asset}: {len(names):,} {slots[0].axis.replace('_', ' ')}s"


def _causes(slots: Sequence[Slot]) -> list[str]:
    slot = slots[0]
    return [printable(cause.text_in(slot.partition)) for cause in slot.causes]
