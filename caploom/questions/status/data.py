"""The slots of data, judged: raw pairs, captions, sheared captions.

Each is judged once. Plans come from the stages' own functions, so that what is current here is what a run would find.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from caploom.captioning import ledger
from caploom.captioning.identity import captioner_fingerprint
from caploom.common.changes import changes
from caploom.config.factory import Factory
from caploom.config.recipes import Recipe
from caploom.questions.status.node import Judged, Made, Question, current_inputs, judge, plan_of
from caploom.questions.status.slots import Cause, Slot, State, Why, changed
from caploom.questions.status.versions import Versions, address_label
from caploom.stages import raw_pairs as ingest
from caploom.stages import sheared as shear
from caploom.stages.captions import captions_stage
from caploom.stages.raw_words import known_corpus_words
from caploom.stages.shards import list_shards
from caploom.storage.store import Artifact, Plan

_BEHIND = "the content behind its settings (the files of a model or of captions, or Caploom's backend)"


class DataSlots:
    """Everything that is kept by shard, and what a recipe shears of it."""

    def __init__(self, factory: Factory, versions: Versions) -> None:
        self._factory = factory
        self._versions = versions
        self._captions: dict[str, list[Judged]] = {}
        self._sheared: dict[str, Judged] = {}
        self._corpus: dict[str, dict[str, int] | None] = {}

    @cached_property
    def raw_pairs(self) -> list[Judged]:
        """Of every shard, in their order; or one without a shard, while the source is not cut into any."""
        listings = list_shards(self._factory)
        return [self._pairs(each) for each in listings] if listings else [self._uncut()]

    def captions(self, captioner: str) -> list[Judged]:
        """A captioner's, of every shard; or one without a shard."""
        if captioner not in self._captions:
            fingerprint = captioner_fingerprint(self._factory.config.captioners[captioner])
            self._captions[captioner] = [self._shard_captions(captioner, fingerprint, each) for each in self.raw_pairs]
        return self._captions[captioner]

    def sheared(self, recipe: Recipe) -> Judged:
        """A recipe's, over the captions of all shards: its tables by captioner and shard are its own affair."""
        if recipe.base not in self._sheared:
            self._sheared[recipe.base] = self._judge_sheared(recipe)
        found = self._sheared[recipe.base]
        return replace(found, slot=replace(found.slot, partition=recipe.name))

    def _uncut(self) -> Judged:
        earlier = self._versions.newest(ingest.KIND, None, None)
        causes = [Cause(Why.SOURCE, "pairs", "the source is not cut into shards yet (a run does it, or the sensor)")]
        if earlier is not None:
            reader = self._factory.config.pairs
            now = reader.fingerprinted() if reader is not None else {}
            causes = [*(changed(each) for each in changes(self._source_of(earlier), now, "pairs")), *causes]
        state = State.MISSING if earlier is None else State.STALE
        return Judged(Slot(ingest.KIND, None, state, tuple(causes)), (ingest.KIND, ""), None)

    def _pairs(self, listing: Artifact) -> Judged:
        shard = listing.manifest.configuration["shard"]
        stage = ingest.raw_pairs_stage(self._factory, shard)
        rows = Judged(Slot("rows of the source", shard, State.CURRENT), ("rows of the source", shard), listing)

        def made(code_version: str, rows_from: str, source: Any) -> Made:
            return Made({"pairs": source}, code_version, {rows.label: rows_from})

        def past(artifact: Artifact) -> Made:
            manifest = artifact.manifest
            return made(manifest.code_version, manifest.inputs[0].data_version, self._source_of(artifact))

        return judge(
            Question(
                asset=ingest.KIND,
                partition=shard,
                label=(ingest.KIND, shard),
                plan=plan_of(stage, [rows]),
                present=made(stage.code_version, listing.data_version, listing.manifest.configuration["reader"]),
                upstream=[rows],
                earlier=lambda: self._versions.newest(ingest.KIND, None, shard),
                past=past,
            ),
            self._versions,
        )

    def _source_of(self, pairs: Artifact) -> Any:
        """The reader that raw pairs come from, as the listing of their shard has it."""
        listing = self._versions.read(pairs.manifest.inputs[0].address)
        return listing.manifest.configuration["reader"] if listing is not None else None

    def _shard_captions(self, captioner: str, fingerprint: str, pairs: Judged) -> Judged:
        shard = pairs.slot.partition
        asset = f"{ledger.KIND}/{captioner}"
        stage = captions_stage(self._factory, captioner, shard or "", fingerprint=fingerprint)
        now = _captions_configuration(stage.configuration)

        def past(artifact: Artifact) -> Made:
            before = _captions_configuration(artifact.manifest.configuration)
            if {**before, _BEHIND: None} != {**now, _BEHIND: None}:
                before[_BEHIND] = now[_BEHIND]  # other settings have another fingerprint: that says nothing more
            return replace(Made.of_artifact(artifact), configuration=before)

        return judge(
            Question(
                asset=asset,
                partition=shard,
                label=(asset, shard or ""),
                plan=plan_of(stage, [pairs]),
                present=Made(now, stage.code_version, current_inputs([pairs])),
                upstream=[pairs],
                earlier=lambda: self._versions.newest(ledger.KIND, captioner, None, shard),
                past=past,
            ),
            self._versions,
        )

    def _judge_sheared(self, recipe: Recipe) -> Judged:
        captions = [each for captioner in recipe.captioners for each in self.captions(captioner)]
        corpus = self._corpus_words(recipe.shear) if captions else {}
        stage = shear.sheared_captions_stage(recipe, corpus or {})
        steps = [step.model_dump(mode="json") for step in self._factory.config.shear_steps(recipe.shear)]
        rules = f"shear {recipe.shear}: rules"
        now = {**stage.configuration, **({rules: steps} if captions else {})}

        def past(artifact: Artifact) -> Made:
            parts = [self._versions.read(record.address) for record in artifact.manifest.inputs]
            sources = [part.manifest.inputs[0] for part in parts if part is not None]
            before = dict(artifact.manifest.configuration)
            if captions:  # the rules of a shear of another name are no change of this one's
                same = parts and parts[0] is not None and before["shear"] == recipe.shear
                before[rules] = parts[0].manifest.configuration["steps"] if same and parts[0] else steps
            if corpus is None:
                before.pop("corpus_words", None)
            inputs = {address_label(source.address): source.data_version for source in sources}
            return Made(before, artifact.manifest.code_version, inputs)

        return judge(
            Question(
                asset=shear.KIND,
                partition=recipe.name,
                label=(shear.KIND, recipe.base),
                plan=self._sheared_plan(recipe, stage, captions, corpus),
                present=Made(now, stage.code_version, current_inputs(captions)),
                upstream=captions,
                earlier=lambda: self._versions.newest(shear.KIND, recipe.base),
                past=past,
            ),
            self._versions,
        )

    def _sheared_plan(
        self, recipe: Recipe, stage: Plan, captions: Sequence[Judged], corpus: dict[str, int] | None
    ) -> Plan | None:
        """None where a captioner's table of a shard is not made."""
        steps = self._factory.config.shear_steps(recipe.shear)
        pairs = {each.slot.partition: each for each in self.raw_pairs}
        parts: list[Artifact] = []
        for each in captions:
            captioner, shard = each.slot.asset.removeprefix(f"{ledger.KIND}/"), each.slot.partition
            if shard is None or corpus is None:
                return None
            table = shear.sheared_shard_stage(steps, captioner, shard, corpus)
            plan = plan_of(table, [each, pairs[shard]] if shear.needs_raw_words(steps) else [each])
            part = self._versions.find(plan) if plan is not None else None
            if part is None:
                return None
            parts.append(part)
        return stage.of(part.as_input() for part in parts)

    def _corpus_words(self, name: str) -> dict[str, int] | None:
        """The raw captions' length over all shards, where the shear asks for it; None before it can be known."""
        if name not in self._corpus:
            pairs = [each.artifact for each in self.raw_pairs if each.artifact is not None]
            known = known_corpus_words(self._factory.store, self._factory.config.shear_steps(name), pairs)
            self._corpus[name] = known if known == {} or len(pairs) == len(self.raw_pairs) else None
        return self._corpus[name]


def _captions_configuration(configuration: dict[str, Any]) -> dict[str, Any]:
    """What made captions, key by key as the YAML has it."""
    asked = {"retries": configuration.get("retries", 0)}
    return {**configuration["settings"], **asked, _BEHIND: configuration["captioner_fingerprint"]}
