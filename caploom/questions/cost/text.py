"""A cost plan in words: for a terminal, and as Markdown."""

from collections import Counter
from collections.abc import Sequence

from caploom.common.text import counted, markdown_text, printable
from caploom.questions.cost.items import CostItem
from caploom.questions.cost.plan_cost import CostPlan

_HEAD = ["stage", "of", "to do", "that is", "takes", "as measured on"]


def cost_text(plan: CostPlan) -> str:
    """For a terminal: a table of what is to do, what is shared, what is made already, and the sum."""
    rows = [_HEAD, *(_row(item) for item in _to_do(plan))]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([_opening(plan), "", *([*table, ""] if len(rows) > 1 else []), *_told(plan)])


def cost_markdown(plan: CostPlan) -> str:
    """The same as Markdown."""
    rows = [_HEAD, ["---"] * len(_HEAD), *([markdown_text(cell) for cell in _row(item)] for item in _to_do(plan))]
    table = [f"| {' | '.join(row)} |" for row in rows] if len(rows) > 2 else []
    return "\n".join(
        [markdown_text(_opening(plan)), "", *table, "", *(f"- {markdown_text(line)}" for line in _told(plan))]
    )


def duration(seconds: float) -> str:
    """`4 s`, `6 min 4 s`, `2 h 5 min`, `3 d 4 h`; below half a second `< 1 s`."""
    if 0 < seconds < 0.5:
        return "< 1 s"
    whole = round(seconds)
    for (unit, size), (lower, below) in (
        (("d", 86_400), ("h", 3_600)),
        (("h", 3_600), ("min", 60)),
        (("min", 60), ("s", 1)),
    ):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size:,} {unit}" + (f" {rest} {lower}" if rest else "")
    return f"{whole} s"


def _to_do(plan: CostPlan) -> list[CostItem]:
    return [item for item in plan.items if item.to_do]


def _opening(plan: CostPlan) -> str:
    more = "" if plan.trainings == plan.recipes else f", {plan.trainings:,} with their seeds"
    return f"{plan.factory}: {counted(plan.recipes, 'recipes')}{more}."


def _row(item: CostItem) -> list[str]:
    at_most = "" if item.exact else "at most "
    steps = f"{item.steps:,} steps, " if item.steps else ""
    takes = "not measured yet" if item.seconds is None else duration(item.seconds)
    basis = f"{_speed(item.rate.per_second)} a second: {item.rate.basis}" if item.rate is not None else ""
    to_do = f"{item.to_do:,} of {item.to_do + item.done:,}"
    return [item.verb, item.name, to_do, f"{at_most}{steps}{item.units:,} {item.unit}", takes, basis]


def _speed(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _told(plan: CostPlan) -> list[str]:
    lines = []
    shared = [item for item in plan.of("captions") if item.to_do and item.shared_by > 1]
    if shared:
        lines.append(
            "Captions are made once and shared: "
            + ", ".join(f"{item.name} by {item.shared_by} recipes" for item in shared)
            + f". Made for each recipe they would be {plan.captions_unshared:,}."
        )
    unused = [item.name for item in plan.of("captions") if item.to_do and not item.shared_by]
    if unused:
        lines.append(f"No recipe uses {', '.join(unused)}, and a run captions with all captioners of the YAML.")
    found = Counter[str]()
    for item in plan.items:
        found[item.stage] += item.done
    made = [f"{count:,} {stage}" for stage, count in found.items() if count]
    if made:
        lines.append(f"Made already, to be found again: {', '.join(made)}.")
    lines += [f"damaged: {printable(problem)}" for problem in plan.damaged]
    return [*lines, _sum(plan)]


def _sum(plan: CostPlan) -> str:
    """The last sentence."""
    if plan.is_done:
        return "Nothing is to do: everything is made."
    unknown = [f"{item.verb} {item.name}" for item in plan.not_measured]
    certain = all(item.exact for item in plan.of("captions"))
    captions = f"{'' if certain else 'at most '}{counted(plan.captions, 'captions')} to make"
    if not unknown:
        return f"In all: {captions}, about {duration(plan.seconds)}."
    if not plan.seconds:
        return f"In all: {captions}. How long it takes is not measured yet: nothing like it has run in this store."
    return (
        f"In all: {captions}, about {duration(plan.seconds)} and what is not measured yet ({_listed(unknown)}), since "
        "nothing like it has run in this store."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
