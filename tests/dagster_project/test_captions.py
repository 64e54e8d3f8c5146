"""The captions assets in Dagster: the blocking canary, one load a run, retries, what the run's log shows."""

import dagster as dg
import pytest
from small_factory import ColourBackend, settings_of

from caploom.captioning.backend import CanaryRow
from caploom.common import progress
from caploom.config.factory import Factory
from caploom.config.factory_config import load_config
from caploom.stages.shards import create_new_shards, shard_names
from dagster_project.definitions import definitions_of
from dagster_project.jobs import CAPTION_SHARDS
from dagster_project.partitions import SHARD, shard_range_tags
from dagster_project.resources import captioner_models

KEY = dg.AssetKey(["captions", "colours"])


@pytest.fixture
def loads(monkeypatch):
    """Captioners come from here instead of from a folder of weights, and are counted."""
    loaded = []
    backend_class = [ColourBackend]

    def load(settings, store):
        loaded.append(backend_class[0]())
        return loaded[-1]

    monkeypatch.setattr(captioner_models, "load_backend", load)
    return type("Loads", (), {"loaded": loaded, "use": staticmethod(lambda cls: backend_class.__setitem__(0, cls))})


@pytest.fixture
def materialize(write_source, write_config):
    """Runs the captions job over all shards of 25 pictures in shards of ten."""
    source = write_source(25)
    path = write_config(settings_of(source))
    factory = Factory.from_config(load_config(path))
    create_new_shards(factory)
    names = shard_names(factory)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(SHARD, names)

        def run(**config):
            return (
                definitions_of(path)
                .resolve_job_def(CAPTION_SHARDS)
                .execute_in_process(
                    instance=instance,
                    tags=shard_range_tags(names[0], names[-1]),
                    run_config={"ops": {"captions__colours": {"config": config}}} if config else None,
                    raise_on_error=False,
                )
            )

        run.instance, run.source = instance, source
        yield run


def checks(result):
    return {each.check_name: each for each in result.get_asset_check_evaluations() if each.asset_key == KEY}


def test_a_run_over_three_shards_loads_the_captioner_once(loads, materialize):
    result = materialize()
    assert result.success
    assert len(loads.loaded) == 1
    assert sum(len(call) for call in loads.loaded[0].calls) == 25
    assert all(check.passed for check in checks(result).values())
    assert materialize().success
    assert len(loads.loaded) == 1  # nothing to generate, nothing to load


def test_the_canary_blocks_a_captioner_whose_batches_are_wrong(loads, materialize):
    class Padded(ColourBackend):
        def canary(self, refs):
            return [CanaryRow(refs[0].image, "A dog.", "A red square.", equal=False)]

    loads.use(Padded)
    result = materialize()
    assert not result.success
    check = checks(result)["batched_equals_single"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert '"A dog." in a batch' in check.description
    assert not materialize.instance.fetch_materializations(KEY, limit=1).records
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "set batch_size: 1" in failure.step_failure_data.user_failure_data.description


def test_failures_are_redone_when_a_launch_asks_for_it(loads, materialize):
    materialize()  # ingest while all is there
    image = materialize.source / "images" / "0004.png"

    class Refusing(ColourBackend):
        def look(self, picture):
            if picture.getpixel((0, 0))[0] == 4:
                raise ValueError("not today")
            return super().look(picture)

    loads.use(Refusing)
    path = materialize.source.parent / "factory.yaml"
    path.write_text(path.read_text().replace("Describe <image>:", "Name <image>:"))
    assert materialize().success
    assert _failed(materialize.instance) == 1
    loads.use(ColourBackend)
    assert materialize().success
    assert _failed(materialize.instance) == 1
    assert materialize(retry_failures=True).success
    assert _failed(materialize.instance) == 0
    assert loads.loaded[-1].calls == [[picture_id(image)]]


def picture_id(path):
    from caploom.storage.records import image_identity

    return image_identity(path.read_bytes())


def _failed(instance):
    records = [
        instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=KEY, asset_partitions=[f"shard-{number:05d}"]), limit=1
        ).records[0]
        for number in range(3)
    ]
    return sum(record.asset_materialization.metadata["rows_failed"].value for record in records)


def test_the_run_s_log_tells_rows_rate_time_left_and_failures(loads, materialize, monkeypatch, capfd):
    monkeypatch.setattr(progress, "_LOG_INTERVAL", 0.0)
    (materialize.source / "images" / "0002.png").write_bytes(b"")
    assert materialize().success
    lines = [line for line in capfd.readouterr().err.splitlines() if "captions/colours: " in line]
    assert any("images, " in line and " a second, " in line and " left, 0 failed" in line for line in lines)
    assert "24 of 24 images" in lines[-1]
