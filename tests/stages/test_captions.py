import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_factory import ColourBackend

from caploom.captioning.backend import Generation
from caploom.errors import ConfigError, MissingArtifactError, StoreError
from caploom.stages.captions import caption_shard, check_captions, read_captions
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.stage import Ref
from caploom.storage.tables import read_table


def ingested(factory):
    create_new_shards(factory)
    for shard in shard_names(factory):
        ingest_shard(factory, shard)
    return factory


def no_model():
    pytest.fail("a model was loaded though nothing is missing")


def test_a_shard_is_captioned_once_and_then_found_without_loading_a_model(write_source, make_factory):
    factory = ingested(make_factory(write_source(10)))
    made = caption_shard(factory, "colours", "shard-00000", ColourBackend)
    assert len(read_captions(made)) == 10
    assert all(outcome.passed for outcome in check_captions(Graph(factory), made))
    assert caption_shard(factory, "colours", "shard-00000", no_model).reused


def test_a_stopped_run_goes_on_where_it_stopped(write_source, make_factory):
    factory = ingested(make_factory(write_source(10)))

    class Stopping(ColourBackend):
        def generate(self, prepared):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().generate(prepared)

    stopping, going_on = Stopping(), ColourBackend()
    with pytest.raises(KeyboardInterrupt):
        caption_shard(factory, "colours", "shard-00000", lambda: stopping)
    made = caption_shard(factory, "colours", "shard-00000", lambda: going_on)
    first, second = ({image for call in each.calls for image in call} for each in (stopping, going_on))
    assert (len(first), len(second)) == (8, 2)
    assert not first & second
    assert len(read_captions(made)) == 10


def test_another_prompt_generates_again_and_the_old_captions_stay(write_source, make_factory):
    source = write_source(6)
    factory = ingested(make_factory(source))
    old = caption_shard(factory, "colours", "shard-00000", ColourBackend)
    captioner = {"model": "demo:tiny-llava", "prompt": "What is in <image>?"}
    changed, backend = make_factory(source, captioners={"colours": captioner}), ColourBackend()
    new = caption_shard(changed, "colours", "shard-00000", lambda: backend)
    assert sum(len(call) for call in backend.calls) == 6
    assert old.folder != new.folder
    assert len(read_captions(old)) == 6


def test_a_renamed_captioner_finds_its_captions_again(write_source, make_factory):
    source = write_source(6)
    caption_shard(ingested(make_factory(source)), "colours", "shard-00000", ColourBackend)
    captioner = {"model": "demo:tiny-llava", "prompt": "Describe <image>:", "batch_size": 2}
    renamed = make_factory(source, captioners={"tints": captioner})
    table = read_captions(caption_shard(renamed, "tints", "shard-00000", no_model))
    assert table.column("captioner").to_pylist() == ["tints"] * 6


def test_an_image_that_came_in_an_earlier_shard_is_not_captioned_again(write_source, make_factory):
    source = write_source(10, [{"image": "0004.png", "caption": "the same picture again"}])
    factory, backend = ingested(make_factory(source, shard_size=10)), ColourBackend()
    caption_shard(factory, "colours", "shard-00000", lambda: backend)
    again = caption_shard(factory, "colours", "shard-00001", no_model)
    assert len(read_captions(again)) == 1


def test_what_a_killed_process_left_half_written_in_another_shard_is_not_read(write_source, make_factory):
    factory = ingested(make_factory(write_source(12)))
    plan = Graph(factory).plan(Ref("captions", ("colours", "shard-00001")))
    left_over = factory.store.path(plan.address).with_name(f".{plan.fingerprint}.999999999.0")
    left_over.mkdir(parents=True)
    (left_over / "captions.parquet").write_bytes(b"PAR1 cut off")
    assert len(read_captions(caption_shard(factory, "colours", "shard-00000", ColourBackend))) == 10


def test_a_failing_image_is_a_failure_row_of_that_captioner(write_source, make_factory):
    source = write_source(6)
    factory = ingested(make_factory(source))
    (source / "images" / "0002.png").unlink()
    made = caption_shard(factory, "colours", "shard-00000", ColourBackend)
    failures = read_table(made.file("failures.parquet")).to_pylist()
    assert [(row["image"], row["reason"]) for row in failures] == [("0002.png", "missing_image")]
    assert made.manifest.rows.rows_out == 5
    assert all(outcome.passed for outcome in check_captions(Graph(factory), made))


def test_unknown_captioners_and_shards_that_are_not_ingested_are_said(write_source, make_factory):
    factory = make_factory(write_source(3))
    create_new_shards(factory)
    with pytest.raises(MissingArtifactError, match=r"materialize raw_pairs \[shard-00000\] first"):
        Graph(factory).plan(Ref("captions", ("colours", "shard-00000")))
    with pytest.raises(ConfigError, match='no captioner "colour"; known: colours'):
        Graph(factory).plan(Ref("captions", ("colour", "shard-00000")))


def test_a_full_disk_stops_the_shard_and_with_room_again_it_goes_on(write_source, make_factory, small_disk):
    factory = ingested(make_factory(write_source(60), shard_size=100, store=str(small_disk / "store")))
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    filler.write_bytes(bytes(free - 16_384))

    class Wordy(ColourBackend):
        def look(self, image):
            time.sleep(0.02)  # so that batches are kept one by one
            return Generation(os.urandom(500).hex(), 10, "stop")

    first, second = Wordy(), Wordy()
    with pytest.raises(StoreError, match=r"no space left on device.*make room and run again"):
        caption_shard(factory, "colours", "shard-00000", lambda: first)
    filler.unlink()
    made = caption_shard(factory, "colours", "shard-00000", lambda: second)
    images = read_captions(made).column("image_id").to_pylist()
    assert (len(images), len(set(images))) == (60, 60)
    assert all(outcome.passed for outcome in check_captions(Graph(factory), made))
    assert sum(len(call) for call in second.calls) < 60  # what was kept before the disk was full is kept


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from small_factory import ColourBackend
from caploom.captioning.backend import Generation
from caploom.stages.captions import caption_shard
from caploom.config.factory import Factory

class Logging(ColourBackend):
    def generate(self, prepared):
        time.sleep(0.05)
        with open({log!r}, "a") as log:
            log.writelines(image_id + "\\n" for _, image_id in prepared)
        return super().generate(prepared)

factory = Factory.from_yaml(Path({config!r}))
print("ready", flush=True)
caption_shard(factory, "colours", "shard-00000", Logging)
"""


@pytest.fixture
def script(tmp_path):
    """A process that captions the first shard, 50 ms a batch, and writes down which images it generates."""
    log = tmp_path / "captioned.log"
    text = SCRIPT.format(tests=str(Path(__file__).parents[1]), log=str(log), config=str(tmp_path / "factory.yaml"))
    return [sys.executable, "-c", text], log


@pytest.mark.slow
def test_two_runs_on_one_shard_double_and_corrupt_nothing(write_source, make_factory, script):
    command, log = script
    factory = ingested(make_factory(write_source(60), shard_size=100))
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], errors
    made = Graph(factory).find(Ref("captions", ("colours", "shard-00000")))
    images = read_captions(made).column("image_id").to_pylist()
    assert (len(images), len(set(images))) == (60, 60)
    generated = log.read_text().splitlines()
    assert len(generated) == len(set(generated)) == 60
    assert sum("another run is captioning this shard" in error for error in errors) >= 1


@pytest.mark.slow
def test_resume_after_sigkill_loses_and_repeats_nothing(write_source, make_factory, script):
    """Ten processes are killed at random moments of captioning one shard; the eleventh finishes it."""
    command, log = script
    factory = ingested(make_factory(write_source(60), shard_size=100))
    moments = random.Random(0)
    kills = 0
    for _ in range(10):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        try:
            process.wait(timeout=moments.uniform(0.0, 0.35))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills > 0
    subprocess.run(command, check=True, capture_output=True)
    made = Graph(factory).find(Ref("captions", ("colours", "shard-00000")))
    images = read_captions(made).column("image_id").to_pylist()
    assert (len(images), len(set(images))) == (60, 60)
    # Only what was under way, or in the quarter of a second before, when a process was killed is generated again.
    assert len(log.read_text().splitlines()) <= 60 + 6 * 4 * kills
    assert all(outcome.passed for outcome in check_captions(Graph(factory), made))
    left_over = [path for path in made.folder.parent.iterdir() if path.name.startswith(".")]
    assert left_over == []
