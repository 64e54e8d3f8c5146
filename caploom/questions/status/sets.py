"""Evaluation and target sets, judged: the stages that read them make them, so nobody waits for one."""

from collections.abc import Callable, Sequence

from caploom.common.changes import changes
from caploom.common.settings import Settings
from caploom.config.factory import Factory
from caploom.errors import CaploomError
from caploom.evaluation import classification_images, evaluation_pairs
from caploom.questions.status.node import Judged
from caploom.questions.status.slots import Cause, Slot, State, Why, changed
from caploom.questions.status.versions import Versions
from caploom.readers.picture_book import PictureBookReader
from caploom.stages import target_set
from caploom.stages.evaluation_sets import evaluation_set_plan
from caploom.storage.store import Plan

EVALUATION_SETS, TARGET_SETS = "evaluation_sets", "target_sets"


def judge_evaluation_set(factory: Factory, name: str, versions: Versions) -> Judged:
    """The evaluation set of that name: files are hashed, no image is opened, nothing is drawn or made."""
    kinds = (evaluation_pairs.KIND, classification_images.KIND)
    settings = factory.config.evaluation_sets[name]
    return _judge(EVALUATION_SETS, name, settings, kinds, lambda: evaluation_set_plan(factory, name), versions)


def judge_target_set(factory: Factory, name: str, versions: Versions) -> Judged:
    """The target set of that name, likewise."""
    settings = factory.config.target_sets[name]
    planned = lambda: target_set.target_set_plan(factory, name)  # noqa: E731
    return _judge(TARGET_SETS, name, settings, (target_set.KIND,), planned, versions)


def _judge(
    asset: str, name: str, settings: Settings, kinds: Sequence[str], planned: Callable[[], Plan], versions: Versions
) -> Judged:
    problem, current = None, None
    try:
        if isinstance(settings, PictureBookReader) and not settings.is_drawn:
            problem = "its pictures are not drawn yet (a run draws them)"
        else:
            current = versions.find(planned())
    except CaploomError as error:  # such as a folder that is gone: said as the cause
        problem = str(error)
    if current is not None:
        slot = Slot(asset, name, State.CURRENT, (), current.manifest.address)
        return Judged(slot, (asset, name), current, made_by_asker=True)
    causes = [Cause(Why.SOURCE, name, problem)] if problem else []
    found = [each for each in (versions.newest(kind, name) for kind in kinds) if each is not None]
    if not found:
        slot = Slot(asset, name, State.MISSING, (Cause(Why.NEVER_MADE, asset, "never made"), *causes))
        return Judged(slot, (asset, name), None, made_by_asker=True)
    earlier = found[0].manifest
    before = earlier.summary.get("reader", earlier.configuration.get("reader"))
    differing = [changed(each) for each in changes(before, settings.fingerprinted())] if before is not None else []
    told = [*differing, *causes] or [Cause(Why.SOURCE, name, "the content of its source changed")]
    slot = Slot(asset, name, State.STALE, tuple(told), earlier.address)
    return Judged(slot, (asset, name), None, made_by_asker=True)
