"""The job `ask`: questions of the `caploom` command from the UI's launchpad, answered in the run's log."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
from pydantic import Field

from caploom.common.settings import nearest
from caploom.config.factory import Factory
from caploom.errors import CaploomError
from dagster_project.assets.materialization import user_errors
from dagster_project.resources.factory import FactoryResource

ASK = "ask"


class Question(dg.Config):
    """The launchpad's fields."""

    question: str = Field(
        default="status",
        description="status, lineage, why, trace, diff, plan or reproduce, as in the command `caploom`.",
    )
    arguments: list[str] = Field(
        default=[],
        description=(
            'The command\'s arguments after the YAML: lineage ["checkpoint [four-captioners]"]; '
            'why ["four-captioners", "r1_i2t"]; trace ["<image id or path>"]; diff ["raw-only", "four-captioners"]; '
            'reproduce ["training_set/four-captioners"]; none for status and plan.'
        ),
    )


def answer(factory: Factory, question: str, arguments: Sequence[str]) -> str:
    """The answer as Markdown; raises `CaploomError` for an unknown question or a wrong number of arguments."""
    if question not in _ANSWERS:
        known = list(_ANSWERS)
        raise CaploomError(f'There is no question "{question}"; known: {", ".join(known)}{nearest(question, known)}.')
    takes, give = _ANSWERS[question]
    if len(arguments) != len(takes):
        wanted = " and ".join(takes) or "nothing"
        raise CaploomError(f"{question} takes {wanted} as `arguments`, but got {len(arguments)}.")
    return give(factory, *arguments)


def _status(factory: Factory) -> str:
    from caploom.questions.status.factory_status import factory_status
    from caploom.questions.status.text import status_markdown

    return status_markdown(factory_status(factory))


def _lineage(factory: Factory, artifact: str) -> str:
    from caploom.questions.lineage.lineage_graph import artifact_lineage
    from caploom.questions.lineage.text import lineage_markdown

    return lineage_markdown(artifact_lineage(factory.store, artifact))


def _why(factory: Factory, recipe: str, metric: str) -> str:
    from caploom.questions.why.text import why_markdown
    from caploom.questions.why.why_metric import why_metric

    return why_markdown(why_metric(factory.store, recipe, metric))


def _trace(factory: Factory, image: str) -> str:
    from caploom.questions.trace.text import trace_markdown
    from caploom.questions.trace.trace_image import trace_image
    from caploom.stages.moves import moves_of

    return trace_markdown(trace_image(factory.store, image, moves=moves_of(factory)))


def _diff(factory: Factory, first: str, second: str) -> str:
    from caploom.questions.diff.differences import differences
    from caploom.questions.diff.text import differences_markdown

    return differences_markdown(differences(factory, first, second))


def _plan(factory: Factory) -> str:
    from caploom.questions.cost.plan_cost import plan_cost
    from caploom.questions.cost.text import cost_markdown

    return cost_markdown(plan_cost(factory))


def _reproduce(factory: Factory, artifact: str) -> str:
    from caploom.reproduce.reproduce import reproduce
    from caploom.reproduce.verdict import verdict_text
    from caploom.stages.artifact_names import find_artifact

    with TemporaryDirectory(prefix="caploom-reproduce-") as folder:
        result = reproduce(factory, find_artifact(factory.store, artifact), Path(folder))
    return f"```\n{verdict_text(result)}\n```"


_ANSWERS: Mapping[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "status": ((), _status),
    "lineage": (("an artifact",), _lineage),
    "why": (("a recipe", "a metric"), _why),
    "trace": (("an image",), _trace),
    "diff": (("a recipe or an artifact", "another"), _diff),
    "plan": ((), _plan),
    "reproduce": (("an artifact",), _reproduce),
}
"""Each question's arguments and function."""


@dg.op(
    name="answer", out=dg.Out(dg.Nothing), description="Answers a question about the factory, in its output's metadata."
)
def _answer(context: dg.OpExecutionContext, config: Question, factory: FactoryResource) -> None:
    with user_errors():
        text = answer(factory.open(), config.question, config.arguments)
    asked = " ".join([config.question, *config.arguments])
    context.add_output_metadata({"asked": asked, "answer": dg.MetadataValue.md(text)})


@dg.job(
    name=ASK,
    description="Asks status, lineage, why, trace, diff, plan or reproduce; the answer is in the run's log.",
)
def ask_job() -> None:
    """One question."""
    _answer()
