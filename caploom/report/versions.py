"""Versions of the data for the report, the terminal and the UI: one row per version, the oldest first."""

from collections.abc import Mapping, Sequence

from caploom.common.text import counted
from caploom.questions.results.data_versions import MOST_VERSIONS, DataVersion, NewData, Recalls, RecipeVersions
from caploom.questions.results.results import percent
from caploom.questions.results.tables import markdown_table
from caploom.report import charts
from caploom.report.sections import Cell, Row, Section, text_of

_HEADER = [
    "version", "measured (UTC)", "what is new", "shards", "images", "captions", "mean R@1", "change (95 % interval)",
    "p", "i2t R@1", "t2i R@1", "samples seen", "seeds",
]  # fmt: skip
_ABOUT = (
    "Each version is another training set made with the same settings. The change is against the previous version, in "
    "points of mean Recall@1, paired over the same images and seeds; its interval is over images. It is about these "
    "checkpoints, and not about the effect of another training seed."
)
_THE_SAME = "the same images, different captions"


def versions_section(found: Mapping[str, RecipeVersions], label: str, name: str) -> Section | None:
    """The section of one measurement, over all recipes with several versions; None where there is none."""
    several = {recipe: each for recipe, each in found.items() if len(each.of(label)) > 1}
    if not several:
        return None
    table: list[Row] = [["recipe", *_HEADER]]
    for recipe, each in several.items():
        table += [
            [Cell(recipe, version.training_set), *_cells(number, version, label)] for number, version in each.of(label)
        ]
    points = [
        (recipe, number, version.images, version.recalls[label].mean)
        for recipe, each in several.items()
        for number, version in each.of(label)
    ]
    return Section(
        name,
        f"Versions of the data on {label}",
        sentences=[_ABOUT, *(sentence for each in several.values() for sentence in left_out_sentences(each))],
        table=table,
        charts=[charts.versions_chart(points, label, name)],
    )


def versions_markdown(found: RecipeVersions) -> str:
    """A recipe's versions as Markdown: a table per measurement, and notes on what is missing."""
    blocks = []
    for label in found.labels:
        rows = [[text_of(cell) for cell in _cells(number, version, label)] for number, version in found.of(label)]
        blocks += [f"{found.recipe} on {label}", markdown_table([_HEADER, *rows])]
    if not blocks:
        blocks.append(f"{found.recipe} has not been measured with its present settings.")
    return "\n\n".join([*blocks, *left_out_sentences(found)])


def left_out_sentences(found: RecipeVersions) -> list[str]:
    """Notes on what a recipe's table does not show, one sentence each."""
    left, name = found.left_out, found.recipe
    sentences = []
    if left.older:
        total = left.older + len(found.versions)
        sentences.append(f"{name}: the newest {MOST_VERSIONS} of {total} versions are shown.")
    if left.other_settings:
        sentences.append(
            f"{name}: {counted(left.other_settings, 'older measurements')} of other settings "
            f"{_are(left.other_settings)} not shown; `caploom sql` metrics_history has them."
        )
    if left.gone:
        sentences.append(
            f"{name}: {counted(left.gone, 'measurements')} {_are(left.gone)} not shown, because something that "
            f"{'it was' if left.gone == 1 else 'they were'} made from is gone from the store or damaged."
        )
    if left.unmeasured:
        sentences.append(
            f"{name}: {counted(left.unmeasured, 'training sets')} of these settings {_has(left.unmeasured)} no "
            "measurement: it was not made, or its files were deleted."
        )
    gone = sum(any(one.why_not == "ranks are gone" for one in version.recalls.values()) for version in found.versions)
    if gone:
        sentences.append(
            f"{name}: {counted(gone, 'changes')} cannot be computed, because the ranks of single queries "
            "(ranks.parquet) of a measurement are gone or damaged."
        )
    return sentences


def _cells(number: int, version: DataVersion, label: str) -> Row:
    recalls, metrics = version.recalls[label], next(iter(version.metrics.values()))
    change, p_value = _change(recalls)
    data: Sequence[str] = (f"{version.shards:,}", f"{version.images:,}", f"{version.captions:,}")
    return [
        str(number),
        Cell(version.measured[:16].replace("T", " "), metrics),
        _what_is_new(version.new_data),
        *(Cell(text, version.training_set) for text in data),
        Cell(percent(recalls.mean), metrics),
        Cell(change, metrics),
        Cell(p_value, metrics),
        Cell(percent(recalls.image_to_text), metrics),
        Cell(percent(recalls.text_to_image), metrics),
        Cell(f"{version.samples_seen:,}", metrics),
        str(len(version.metrics)),
    ]


def _change(recalls: Recalls) -> tuple[str, str]:
    found = recalls.change
    if found is None:
        return recalls.why_not or "-", ""
    return found.signed, found.p_text


def _what_is_new(new: NewData | None) -> str:
    if new is None:
        return "-"
    changes = [
        *([f"{counted(new.added, 'shards')} more"] if new.added else []),
        *([f"{counted(new.made_again, 'shards')} read again"] if new.made_again else []),
        *([f"{counted(new.gone, 'shards')} left out"] if new.gone else []),
    ]
    return ", ".join(changes) or _THE_SAME


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _has(count: int) -> str:
    return "has" if count == 1 else "have"
