"""The headless run as a user meets it: exit code, report, reuse, and mistakes told in one sentence."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
from tiny_factory import CAPTIONER, Run, run_headless, tiny_settings, write_settings

import caploom
from caploom.config.factory import Factory
from caploom.storage.manifest import MANIFEST
from caploom.storage.store import Artifact
from dagster_project.assets.materialization import DATA_VERSION_TAG
from dagster_project.instance import instance_home

SHARDS = ["shard-00000", "shard-00001"]
STAGES = ["sheared_captions", "training_set", "checkpoint", "retrieval_metrics"]


def manifests(factory: Factory) -> dict[Path, tuple[int, str]]:
    """When each manifest was written and what it says."""
    found = factory.store.root.rglob(MANIFEST)
    return {path: (path.stat().st_mtime_ns, path.read_text(encoding="utf-8")) for path in found}


def opened_instance(factory: Factory) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(instance_home(factory.config)))


def latest(instance: dg.DagsterInstance, asset: list[str], partition: str | None) -> dg.AssetMaterialization:
    wanted = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey(asset), asset_partitions=[partition] if partition is not None else None
    )
    record = instance.fetch_materializations(wanted, limit=1).records[0]
    assert record.asset_materialization is not None
    return record.asset_materialization


def every_partition(factory: Factory) -> list[tuple[list[str], str | None]]:
    by_shard = [["raw_pairs"], *(["captions", captioner] for captioner in factory.config.captioners)]
    recipes = [recipe.name for recipe in factory.config.expanded_recipes()]
    return [
        *((asset, shard) for asset in by_shard for shard in SHARDS),
        *(([stage], recipe) for stage in STAGES for recipe in recipes),
        (["ablation_report"], None),
    ]


def of_shard(factory: Factory, stage: list[str], shard: str) -> Artifact:
    (artifact,) = [each for each in factory.store.list(*stage) if shard in each.manifest.address]
    return artifact


def test_run_prints_the_report_and_exits_0(first_run: Run) -> None:
    assert first_run.code == 0, first_run.said
    assert "| recipe " in first_run.stdout
    assert "| raw-only " in first_run.stdout
    assert "| captioned " in first_run.stdout
    assert "| (chance) " in first_run.stdout
    assert "Traceback" not in first_run.said


def test_every_partition_is_materialized(factory: Factory) -> None:
    with opened_instance(factory) as instance:
        for asset, partition in every_partition(factory):
            assert latest(instance, asset, partition).partition == partition


def test_each_shard_has_the_data_version_of_its_own_artifact(factory: Factory) -> None:
    with opened_instance(factory) as instance:
        for stage in (["raw_pairs"], ["captions", CAPTIONER]):
            artifacts = [of_shard(factory, stage, shard) for shard in SHARDS]
            said = [(latest(instance, stage, shard).tags or {})[DATA_VERSION_TAG] for shard in SHARDS]
            assert said == [artifact.data_version for artifact in artifacts]
            assert said[0] != said[1]


def test_second_run_makes_nothing_again(finished: Path, factory: Factory) -> None:
    before = manifests(factory)
    again = run_headless(finished)
    assert again.code == 0, again.said
    assert "| captioned " in again.stdout
    assert manifests(factory) == before
    assert "Loading weights" not in again.stderr  # transformers says so when a captioner is loaded
    with opened_instance(factory) as instance:
        for asset, partition in every_partition(factory):
            assert latest(instance, asset, partition).metadata["reused"].value is True, (asset, partition)


@pytest.mark.slow
def test_captioner_without_a_processor_fails_in_one_sentence_and_alone(
    tmp_path: Path, pictures: Path, finished: Path
) -> None:
    shipped = Path(caploom.__file__).parent / "demo" / "captioners" / CAPTIONER
    broken = shutil.copytree(shipped, tmp_path / "broken", ignore=shutil.ignore_patterns("*processor*", "*token*"))
    settings = tiny_settings(pictures)
    settings["captioners"][CAPTIONER]["model"] = str(broken)
    # The recipe without a captioner is trained already; what is under way or recorded elsewhere is not taken along.
    store = finished.parent / settings["store"]
    shutil.copytree(store, tmp_path / settings["store"], ignore=shutil.ignore_patterns("dagster", "catalog*"))
    run = run_headless(write_settings(tmp_path / "broken.yaml", settings))
    assert run.code == 1, run.said
    assert "Traceback" not in run.said
    failed = [line for line in run.stderr.splitlines() if line.startswith("FAILED ")]
    (sentence,) = [line for line in failed if line.startswith("FAILED caption_shards")]
    assert str(broken) in sentence
    assert "processor" in sentence
    assert any("[captioned]" in line for line in failed)
    assert not any("[raw-only]" in line for line in failed)
    assert "| raw-only " in run.stdout


def test_unknown_key_is_one_sentence_and_exit_code_2(tmp_path: Path, pictures: Path) -> None:
    settings = tiny_settings(pictures)
    settings["captioners"][CAPTIONER]["promt"] = "Describe"
    run = run_headless(write_settings(tmp_path / "typo.yaml", settings))
    assert run.code == 2
    assert run.stdout == ""
    (sentence,) = run.stderr.strip().splitlines()
    assert "captioners.tiny-llava.promt" in sentence
    assert 'did you mean "prompt"' in sentence
    assert not (tmp_path / "factory").exists()
