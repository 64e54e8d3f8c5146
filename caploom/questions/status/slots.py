"""What `factory_status` answers with: a slot for each thing that the present YAML asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from caploom.common.changes import Change


class State(StrEnum):
    """How a slot stands.

    current: made of the present configuration and inputs; nothing is to do.
    stale: made before, and something of its own differs now: its configuration, Caploom's code, an input's content.
    outdated: made before and configured as before, but something upstream is not current: it waits for that.
    missing: never made, in no version.
    """

    CURRENT = "current"
    STALE = "stale"
    OUTDATED = "outdated"
    MISSING = "missing"


class StaleCause(StrEnum):
    """The kinds of causes; all but the last two are a slot's own."""

    CONFIGURATION = "configuration"
    CODE = "code"
    INPUT = "input"
    SOURCE = "source"
    DAMAGED = "damaged"
    NEVER_MADE = "never made"
    WAITS = "waits"


@dataclass(frozen=True)
class Cause:
    """One reason why a slot is not current.

    Attributes:
        why: of which kind.
        what: the dotted key that changed, or the asset that is meant.
        words: the sentence; with `partitions`, without them.
        before: the value before, whole.
        after: the value now, whole.
        partitions: of the asset, those that are meant.
    """

    why: StaleCause
    what: str
    words: str
    before: Any = None
    after: Any = None
    partitions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The sentence: `waits for captions/llava [shard-00003]`."""
        return self.text_in(None)

    def text_in(self, partition: str | None) -> str:
        """The same said of a slot of that partition, whose own name goes without saying."""
        if not self.partitions or self.partitions == (partition,):
            return self.words
        count = len(self.partitions)
        return f"{self.words} [{self.partitions[0]}]" if count == 1 else f"{self.words} ({count:,} of them)"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "why": self.why.value,
            "what": self.what,
            "before": self.before,
            "after": self.after,
            "partitions": list(self.partitions),
            "text": self.text,
        }


def changed(change: Change) -> Cause:
    """The cause that a changed key of the configuration is."""
    return Cause(StaleCause.CONFIGURATION, change.key, change.text, change.before, change.after)


@dataclass(frozen=True)
class Slot:
    """A place of the graph: an asset, and a partition of it where it has some.

    Attributes:
        asset: as Dagster has it (`captions/llava`, `training_set`); `evaluation_sets` and `target_sets` are made by
            the assets `retrieval_metrics` and `checkpoint` and are slots of their own here.
        partition: a shard, a recipe, a set's name; None for the report, and where no shard has been cut yet.
        state: how it stands.
        causes: why it is not current, own causes first.
        address: of the artifact that it is current with, or of its newest earlier version; None if never made.
        axis: what a partition is: shard, recipe, ...
        same_content: it is current, although an input was rebuilt since with identical content: whoever runs it
            again gets the same under another address.
    """

    asset: str
    partition: str | None
    state: State
    causes: tuple[Cause, ...] = ()
    address: str | None = None
    same_content: bool = False
    axis: str = "recipe"

    @property
    def label(self) -> str:
        """`captions/llava [shard-00003]`."""
        return self.asset if self.partition is None else f"{self.asset} [{self.partition}]"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "causes": [cause.to_dict() for cause in self.causes]}


@dataclass(frozen=True)
class FactoryStatus:
    """Every slot of the present YAML, upstream first, and what in the store could not be read."""

    factory: str
    slots: tuple[Slot, ...]
    damaged: tuple[str, ...] = ()

    @property
    def is_current(self) -> bool:
        """Whether nothing is to do."""
        return all(slot.state is State.CURRENT for slot in self.slots)

    def of_state(self, *states: State) -> Sequence[Slot]:
        """The slots in these states."""
        return [slot for slot in self.slots if slot.state in states]

    def counts(self) -> dict[str, int]:
        """How many slots are in each state."""
        return {state.value: len(self.of_state(state)) for state in State}

    def to_dict(self, *, everything: bool = False) -> dict[str, Any]:
        """As JSON has it; slots that are current only with `everything`."""
        slots = [slot for slot in self.slots if everything or slot.state is not State.CURRENT]
        return {
            "factory": self.factory,
            "current": self.is_current,
            "counts": self.counts(),
            "slots": [slot.to_dict() for slot in slots],
            "damaged": list(self.damaged),
        }
