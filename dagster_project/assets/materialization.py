"""What every asset does around its one library call: user errors as sentences, metadata, checks, data versions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from caploom.common.hashing import fingerprint
from caploom.config.recipes import Recipe
from caploom.errors import CaploomError
from caploom.stages.checks import BETTER_THAN_CHANCE, DESCRIPTIONS, CheckOutcome
from caploom.stages.stage import Stage
from caploom.storage.store import Artifact
from dagster_project.settings import DATA_VERSION_TAG
from dagster_project.tags import recipe_tags

_MOST_ADDRESSES = 20  # shown of a step's artifacts
_ADVISORY_CHECKS = {BETTER_THAN_CHANCE}  # a finding about the data and no fault: it warns and blocks nothing

AssetEvents = Iterator[dg.MaterializeResult | dg.AssetMaterialization | dg.AssetCheckResult]


@contextmanager
def user_errors(but: type[CaploomError] | None = None) -> Iterator[None]:
    """A user's mistake becomes a failed step with its one sentence, not a traceback, and is not retried.

    Errors of the class `but` are left to whoever calls.
    """
    try:
        yield
    except CaploomError as error:
        if but is not None and isinstance(error, but):
            raise
        raise dg.Failure(description=str(error), allow_retries=False) from None


def check_specs(asset: dg.AssetKey, stage: Stage) -> list[dg.AssetCheckSpec]:
    """The checks that an asset's own step reports; all but the advisory ones block what is downstream."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=DESCRIPTIONS.get(name), blocking=name not in _ADVISORY_CHECKS)
        for name in stage.checks.names
    ]


def failed_check(asset: dg.AssetKey, name: str, sentence: str) -> dg.AssetCheckResult:
    """A check that fails before there is anything to materialize."""
    return dg.AssetCheckResult(
        asset_key=asset, check_name=name, passed=False, severity=dg.AssetCheckSeverity.ERROR, description=sentence
    )


def left_out(context: dg.AssetExecutionContext, stage: Stage, sentence: str) -> AssetEvents:
    """The events of a step that is none of the recipe's: nothing is materialized, and its checks have nothing to find.

    Dagster asks for the checks all the same.
    """
    context.log.info(sentence)
    for name in stage.checks.names:
        yield dg.AssetCheckResult(asset_key=context.asset_key, check_name=name, passed=True, description=sentence)


def shard_events(
    context: dg.AssetExecutionContext,
    artifacts: Mapping[str, Artifact],
    outcomes: Mapping[str, Sequence[CheckOutcome]],
    extra: Mapping[str, Mapping[str, Any]],
    tags: Mapping[str, str] | None = None,
) -> AssetEvents:
    """The result of a step over one or many shards: metadata a shard, checks over all, and a data version a shard."""
    for shard, artifact in artifacts.items():
        context.add_asset_metadata({**extra.get(shard, {}), **artifact_metadata(artifact)}, partition_key=shard)
    versions = [artifact.data_version for artifact in artifacts.values()]
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(versions[0] if len(versions) == 1 else fingerprint(versions)),
        check_results=_check_results(outcomes),
        tags=tags,
    )
    if len(artifacts) > 1:
        yield from _corrected_data_versions(context, artifacts)


def result(
    artifact: Artifact,
    outcomes: Sequence[CheckOutcome] = (),
    extra: Mapping[str, Any] | None = None,
    *,
    recipe: Recipe | None = None,
    also: Sequence[Artifact] = (),
    tags: Mapping[str, str] | None = None,
) -> dg.MaterializeResult:
    """The result of a step over one recipe, or over all; `extra` is what a person looks at first.

    `also` are further artifacts of the step, whose content is part of its data version.
    """
    versions = [each.data_version for each in (artifact, *also)]
    return dg.MaterializeResult(
        metadata={**(extra or {}), **artifact_metadata(artifact)},
        data_version=dg.DataVersion(fingerprint(versions) if also else artifact.data_version),
        check_results=_check_results({recipe.name if recipe else "": outcomes}),
        tags=tags or (recipe_tags(recipe) if recipe else None),
    )


def several(
    artifacts: Sequence[Artifact],
    outcomes: Sequence[CheckOutcome],
    extra: Mapping[str, Any],
    *,
    partition: str,
    tags: Mapping[str, str],
) -> dg.MaterializeResult:
    """The result of a step whose one partition is many artifacts, one a shard."""
    counts = [each.manifest.rows for each in artifacts if each.manifest.rows is not None]
    return dg.MaterializeResult(
        metadata={
            **extra,
            "rows_in": sum(rows.rows_in for rows in counts),
            "rows_out": sum(rows.rows_out for rows in counts),
            "reused": sum(each.reused for each in artifacts),
            "seconds": round(sum(each.manifest.seconds for each in artifacts), 3),
            "artifacts": dg.MetadataValue.md(_addresses(artifacts)),
        },
        data_version=dg.DataVersion(fingerprint([each.data_version for each in artifacts])),
        check_results=_check_results({partition: outcomes}),
        tags=tags,
    )


def _addresses(artifacts: Sequence[Artifact]) -> str:
    shown = [f"- `{each.manifest.address}`" for each in artifacts[:_MOST_ADDRESSES]]
    more = len(artifacts) - len(shown)
    return "\n".join([*shown, *([f"- and {more:,} more"] if more else [])])


def artifact_metadata(artifact: Artifact) -> dict[str, Any]:
    """Counts, reasons of failure, where it lies and what made it."""
    manifest = artifact.manifest
    metadata: dict[str, Any] = {}
    if manifest.rows is not None:
        metadata |= {
            "rows_in": manifest.rows.rows_in,
            "rows_out": manifest.rows.rows_out,
            "rows_failed": manifest.rows.rows_failed,
        }
        if manifest.rows.reasons:
            metadata["failures_by_reason"] = dg.MetadataValue.json(manifest.rows.reasons)
    return metadata | {
        "reused": artifact.reused,
        "seconds": manifest.seconds,
        "artifact": manifest.address,  # its folder below the store's
        "manifest": dg.MetadataValue.json(manifest.model_dump(mode="json", exclude={"files"})),
    }


def _check_results(outcomes: Mapping[str, Sequence[CheckOutcome]]) -> list[dg.AssetCheckResult]:
    by_name: dict[str, list[tuple[str, CheckOutcome]]] = {}
    for partition, each in outcomes.items():
        for outcome in each:
            by_name.setdefault(outcome.name, []).append((partition, outcome))
    return [
        dg.AssetCheckResult(
            check_name=name,
            passed=all(outcome.passed for _, outcome in found),
            severity=dg.AssetCheckSeverity.WARN if name in _ADVISORY_CHECKS else dg.AssetCheckSeverity.ERROR,
            description=" ".join(f"{partition}: {o.sentence}".removeprefix(": ") for partition, o in found),
            metadata={"figures": dg.MetadataValue.json({partition or "all": o.figures for partition, o in found})},
        )
        for name, found in by_name.items()
    ]


def _corrected_data_versions(
    context: dg.AssetExecutionContext, artifacts: Mapping[str, Artifact]
) -> Iterator[dg.AssetMaterialization]:
    """Give each shard of a multi-shard step its own data version.

    Dagster stamps every partition of a step with one data version. A shard rebuilt alone would then look changed to
    what is downstream, though its content is the same; so each shard's event is said once more with its own version.
    """
    for shard, artifact in artifacts.items():
        records = context.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=context.asset_key, asset_partitions=[shard]), limit=1
        ).records
        said = records[0].asset_materialization if records else None
        if said is None:
            continue
        yield dg.AssetMaterialization(
            asset_key=context.asset_key,
            partition=shard,
            metadata=said.metadata,
            tags={**(said.tags or {}), DATA_VERSION_TAG: artifact.data_version},
        )
