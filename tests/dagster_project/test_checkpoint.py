"""The checkpoint asset in Dagster: the trainer's process, what it streams into the UI, its death, the second stage."""

import json
import signal
import threading
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest
from small_factory import picture, settings_of

from caploom.config.factory import Factory
from caploom.config.factory_config import load_config
from caploom.questions.results.results import finished_arms, result_rows
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards, shard_names
from dagster_project.definitions import definitions_of
from dagster_project.jobs import RUN_RECIPE

KEY = dg.AssetKey("checkpoint")
SMALL = {"model": "picture-book", "steps": 20, "batch_size": 4, "save_every": 2, "learning_rate": 0.001}


@pytest.fixture
def recipe_job(write_source, write_config):
    """Runs the job of the recipe raw-only over 12 pictures; `settings` are the YAML's."""
    source = write_source(12)

    def run(instance, **settings):
        path = write_config(settings_of(source, **{"trainers": {"small": SMALL}, **settings}))
        factory = Factory.from_config(load_config(path))
        create_new_shards(factory)
        for shard in shard_names(factory):
            ingest_shard(factory, shard)
        job = definitions_of(path).resolve_job_def(RUN_RECIPE)
        run.factory = factory
        return job.execute_in_process(instance=instance, partition_key="raw-only", raise_on_error=False)

    run.source = source
    return run


def messages(instance, result) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(result.run_id)]


def observations(result) -> list[dg.AssetObservation]:
    events = (event.event_specific_data for event in result.all_events if event.is_asset_observation)
    return [data.asset_observation for data in events]


def metadata_of(result) -> dict:
    (event,) = result.asset_materializations_for_node("checkpoint")
    return event.metadata


@pytest.fixture
def target_set(tmp_path: Path) -> dict:
    """Eight pictures that are no others, each with two captions."""
    folder = tmp_path / "target"
    folder.mkdir()
    rows = []
    for number in range(8):
        picture(1000 + number).save(folder / f"{number}.png")
        rows += [{"image": f"{number}.png", "caption": f"{word} {number}"} for word in ("square", "block")]
    (folder / "captions.json").write_text(json.dumps(rows))
    return {"reader": "image_captions", "root": str(folder), "captions": str(folder / "captions.json")}


def finetuned(target: dict) -> dict:
    return {
        "target_sets": {"people": target},
        "recipes": {"raw-only": {"captioners": [], "finetune": {"target_set": "people", "trainer": "small"}}},
    }


@pytest.mark.slow
def test_both_stages_stream_their_progress_into_the_run_and_are_measured(recipe_job, target_set) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = recipe_job(instance, **finetuned(target_set))
        assert result.success
        said = [line for line in messages(instance, result) if line.startswith("step ")]
    assert len(said) == 2 * 20
    for last in said[19::20]:
        assert last.startswith("step 20 of 20: loss ")
        assert all(part in last for part in ("samples per second", "of the time waiting for data", "0 s left"))
    seen = observations(result)
    assert [each.metadata["step"].value for each in seen] == [2 * number for number in range(1, 11)] * 2
    assert all(each.asset_key == KEY and each.partition == "raw-only" for each in seen)
    for last in seen[9::10]:
        assert {"loss", "samples_per_second", "data_wait_share", "loss curve"} <= set(last.metadata)
    metadata = metadata_of(result)
    assert metadata["samples_seen"].value == 80
    assert metadata["artifact"].value.startswith("checkpoint/raw-only/")
    assert metadata["fine-tuned: artifact"].value.startswith("finetuned_checkpoint/raw-only/")
    arms, waiting = finished_arms(recipe_job.factory)
    assert waiting == []
    assert [row.label for row in result_rows(arms)] == ["same", "same, fine-tuned"]
    first, second = (each["mean_recall@1"] for each in arms[0].metrics.manifest.summary["measurements"])
    assert 0 <= first <= 1 and 0 <= second <= 1
    tuned = recipe_job.factory.store.read(metadata["fine-tuned: artifact"].value)
    assert tuned.manifest.inputs[0].address == metadata["artifact"].value


def test_a_target_set_that_holds_test_images_fails_with_its_sentence(recipe_job) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = recipe_job(instance, **finetuned(settings_of(recipe_job.source)["pairs"]))
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    assert "12 of the 12 images of the evaluation set same" in failure.step_failure_data.user_failure_data.description
    assert recipe_job.factory.store.list("checkpoint") == []  # before anything was trained


@pytest.mark.slow
def test_a_killed_trainer_is_a_clean_failed_run_and_the_next_run_goes_on(recipe_job) -> None:
    killed = threading.Event()

    def kill_once_a_state_is_written() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed.is_set():
            for process in psutil.process_iter():
                try:
                    line = process.cmdline()
                    if "dagster_project.training_process" not in line:
                        continue
                    if list(Path(line[-1], "state").glob("step-*")):
                        process.send_signal(signal.SIGKILL)
                        killed.set()
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    continue
            time.sleep(0.01)

    with dg.DagsterInstance.ephemeral() as instance:
        many = {"trainers": {"small": {**SMALL, "steps": 300}}}
        killer = threading.Thread(target=kill_once_a_state_is_written)
        killer.start()
        result = recipe_job(instance, **many)
        killer.join()
        assert killed.is_set()
        assert not result.success
        (failure,) = (event for event in result.all_events if event.is_step_failure)
        description = failure.step_failure_data.user_failure_data.description
        assert description.startswith("The trainer was killed (SIGKILL), as the system does when memory runs out")
        assert "Traceback" not in description
        result = recipe_job(instance, **many)
    assert result.success
    checkpoint = recipe_job.factory.store.read(metadata_of(result)["artifact"].value)
    assert checkpoint.manifest.summary["resumed_from"] >= 2
    assert checkpoint.manifest.summary["samples_seen"] == 300 * 4
