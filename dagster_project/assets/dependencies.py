"""Which steps of the factory are assets, under which keys, and what each depends on: as the steps declare it.

A step is an asset of its own unless whoever needs its artifacts makes them, or people know them as a part of another
asset (`shown_in`); or it has an asset written by hand. What is none is looked through: the assets that are made from it
depend on what it is made from.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dagster as dg

from caploom.common.settings import nearest
from caploom.config.factory_config import FactoryConfig
from caploom.errors import ConfigError
from caploom.stages.registry import load_stage, stages
from caploom.stages.stage import Stage
from dagster_project.assets.materialization import check_specs
from dagster_project.freshness import freshness_of
from dagster_project.layout import (
    CAPTIONER,
    RECIPE,
    SHEAR,
    asset_key,
    partition_axis,
    partition_names,
    partitions_of,
    shears_of,
    shown_in,
)
from dagster_project.partitions import SHARD
from dagster_project.settings import settings_dependency
from dagster_project.tags import asset_owners, captioner_tags

Decorator = Callable[[Callable[..., Any]], dg.AssetsDefinition]


class FactoryAssets:
    """The assets of a factory, some of whose steps have assets that are written by hand."""

    def __init__(self, config: FactoryConfig, by_hand: Iterable[str] = ()) -> None:
        self.config = config
        self._by_hand = frozenset(by_hand)

    @cached_property
    def _shown(self) -> dict[str, str]:
        """By kind, the kind whose assets show it; without those that are looked through."""
        steps = [stage for stage in stages() if stage.is_in(self.config)]
        found = ((stage.kind, stage.kind if stage.kind in self._by_hand else shown_in(stage)) for stage in steps)
        return {kind: shown for kind, shown in found if shown is not None}

    @property
    def declared(self) -> list[Stage]:
        """The steps whose assets are made from their declarations alone."""
        return [stage for stage in self.stages if stage.kind not in self._by_hand]

    @property
    def stages(self) -> list[Stage]:
        """The steps that have assets of their own."""
        return [load_stage(kind) for kind, shown in self._shown.items() if kind == shown]

    def has(self, stage: Stage) -> bool:
        """Whether the factory has a step."""
        return stage.kind in self._shown

    def keys(self, stage: Stage) -> dict[str, dg.AssetKey]:
        """The assets of a step by captioner; one alone, under no name, where its axes have none."""
        if CAPTIONER not in stage.axes:
            return {"": asset_key(stage)}
        return {
            name: asset_key(stage, name)
            for name in self.config.captioners
            if SHEAR not in stage.axes or shears_of(self.config, name)
        }

    def select(self, *chosen: Stage) -> dg.AssetSelection:
        """All assets of some steps."""
        return dg.AssetSelection.assets(*(key for stage in chosen for key in self.keys(stage).values()))

    def partitioned_by(self, axis: str | None) -> dg.AssetSelection:
        """All assets whose partitions are of an axis, or that have none."""
        return self.select(*(stage for stage in self.stages if partition_axis(stage) == axis))

    def asset(self, stage: Stage, captioner: str = "", *, but: Container[str] = (), **more: Any) -> Decorator:
        """`dg.asset` with what a step declares of one of its assets; `but` as in `dependencies`, `more` by hand."""
        key, axis = asset_key(stage, captioner), partition_axis(stage)
        captioners = [captioner] if captioner else self.config.captioners if axis == RECIPE else []
        declared = {
            "key": key,
            "deps": self.dependencies(stage, captioner, but=but),
            "partitions_def": partitions_of(self.config, stage, captioner),
            "backfill_policy": dg.BackfillPolicy.single_run() if axis == SHARD else None,
            "code_version": stage.code_version,
            "check_specs": check_specs(key, stage),
            "freshness_policy": freshness_of(self.config, stage.kind),
            "owners": asset_owners(self.config),
            "tags": {**({"captioner": captioner} if captioner else {}), **captioner_tags(captioners)},
        }
        arguments: dict[str, Any] = declared | more
        decorator: Decorator = dg.asset(**arguments)
        return decorator

    def dependencies(self, stage: Stage, captioner: str = "", *, but: Container[str] = ()) -> list[dg.AssetDep]:
        """What one of its assets depends on, and which partitions on which; kinds in `but` are left out."""
        found = [
            dg.AssetDep(key, partition_mapping=self._mapping(stage, other, whose))
            for other in self.upstream(stage)
            for whose, key in self.keys(other).items()
            if other.kind not in but and (not (captioner and whose) or whose == captioner)
        ]
        return [*found, *settings_dependency(stage, partition_names(self.config, stage, captioner))]

    def upstream(self, stage: Stage) -> list[Stage]:
        """The steps whose assets those of a step depend on."""
        parts = [load_stage(kind) for kind, shown in self._shown.items() if shown == stage.kind]
        kinds = dict.fromkeys(asset for part in parts for kind in part.upstream for asset in self._reached(kind))
        return [load_stage(kind) for kind in kinds if kind != stage.kind]

    def back_from(self, kind: str) -> list[Stage]:
        """A step and all that it is made from, in their order; raises `ConfigError` when it has no assets here."""
        known = [stage.kind for stage in self.stages]
        if kind not in known:
            raise ConfigError(f'There is no step "{kind}" here; known: {", ".join(known)}{nearest(kind, known)}.')
        found, waiting = {kind}, [kind]
        while waiting:
            for stage in self.upstream(load_stage(waiting.pop())):
                if stage.kind not in found:
                    found.add(stage.kind)
                    waiting.append(stage.kind)
        return [stage for stage in self.stages if stage.kind in found]

    def _reached(self, kind: str) -> Iterator[str]:
        """The assets that show a kind, or else those of which it is made."""
        if kind in self._shown:
            yield self._shown[kind]
        else:
            for other in load_stage(kind).upstream:
                yield from self._reached(other)

    def _mapping(self, stage: Stage, other: Stage, captioner: str) -> dg.PartitionMapping | None:
        """Which partitions of `other` those of `stage` are made from; None: the same, or there are none."""
        ours, theirs = partition_axis(stage), partition_axis(other)
        if theirs in (None, ours):
            return None
        if (theirs, ours) == (SHEAR, RECIPE):
            return dg.StaticPartitionMapping(shears_of(self.config, captioner))
        return dg.AllPartitionMapping()


@dataclass(frozen=True)
class ByHand:
    """Assets of a step that are written by hand."""

    stage: Stage
    make: Callable[[FactoryAssets], list[dg.AssetsDefinition]]
