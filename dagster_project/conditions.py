"""When assets are materialized automatically: Dagster's declarative automation, in the factory's terms.

A condition decides for each partition whether to make it now. None remakes what an edit of the YAML made stale: that
may cost many GPU hours, so a person requests it.
"""

import dagster as dg

from dagster_project.settings import SETTINGS

_C = dg.AutomationCondition
_EDITS = dg.AssetSelection.assets(SETTINGS)  # observed, never made: always missing to Dagster
_STAGES = 4  # from the raw pairs to the training sets


def caption_new_shards() -> dg.AutomationCondition:
    """A shard that is ingested and has no captions.

    Shards whose captioning failed are excluded: the run was already retried, and a person was notified.
    """
    condition: dg.AutomationCondition = (
        _C.missing().with_label("the shard has no captions of this captioner")
        & ~_C.execution_failed().with_label("captioning it has failed")
        & ~_C.in_progress()
        & ~_C.any_deps_missing().with_label("the shard is not ingested")
        & ~_C.any_deps_in_progress()
        & ~_refused()
    )
    return condition


def follow_new_captions() -> dg.AutomationCondition:
    """Assets made from captions (or raw pairs), once all their inputs are there and none is being made."""
    some_input = _C.any_deps_match(~_C.missing()).ignore(_EDITS)
    never_made = _C.missing() & ~_C.execution_failed() & some_input
    updated = _C.any_deps_match(_C.newly_updated()).ignore(_EDITS).since_last_handled()
    condition: dg.AutomationCondition = (
        (never_made.with_label("never made") | updated.with_label("made of something new"))
        & ~_C.in_progress()
        & ~_unsettled(_STAGES)
        & ~_refused()
    )
    return condition


def follow_new_measurements() -> dg.AutomationCondition:
    """The report, when a recipe was measured and no other one is being measured."""
    condition: dg.AutomationCondition = (
        _C.any_deps_match(_C.newly_updated()).since_last_handled().with_label("a recipe was measured")
        & ~_C.in_progress()
        & ~_C.any_deps_in_progress()
    )
    return condition


def _unsettled(stages: int) -> dg.AutomationCondition:
    """Something up to that many stages upstream is missing, running, or requested, so a merge would be too early."""
    here = _C.missing() | _C.in_progress() | _C.will_be_requested()
    above = here | _unsettled(stages - 1) if stages > 1 else here
    return _C.any_deps_match(above).ignore(_EDITS)


def _refused() -> dg.AutomationCondition:
    """A blocking check of an input has failed."""
    failed = _C.any_checks_match(_C.check_failed(), blocking_only=True).with_label("a blocking check has failed")
    return _C.any_deps_match(failed).ignore(_EDITS)
