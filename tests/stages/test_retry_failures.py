import pytest
from click.testing import CliRunner
from small_factory import ColourBackend, picture

from caploom.cli import main
from caploom.common.progress import track
from caploom.stages.captions import caption_shard, check_captions, read_captions, read_failures
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.retry_failures import retry_every_shard, retry_failures, shards_to_retry
from caploom.stages.shards import create_new_shards, shard_names

SHARD = "shard-00000"


def ingested(factory):
    create_new_shards(factory)
    for shard in shard_names(factory):
        ingest_shard(factory, shard)
    return factory


@pytest.fixture
def broken(write_source, make_factory):
    """Ten pictures, of which two vanished after they were ingested."""
    source = write_source(10)
    factory = ingested(make_factory(source))
    for number in (2, 7):
        (source / "images" / f"000{number}.png").unlink()
    return factory, source


def restore(source, number):
    picture(number).save(source / "images" / f"000{number}.png")


def test_only_the_failures_are_redone_and_the_shard_becomes_whole(broken):
    factory, source = broken
    old = caption_shard(factory, "colours", SHARD, ColourBackend)
    assert old.manifest.rows.rows_failed == 2
    restore(source, 2)
    backend = ColourBackend()
    retried = retry_failures(factory, "colours", SHARD, lambda: backend)
    assert (retried.tried, retried.captioned, retried.given_up) == (2, 1, 0)
    assert sum(len(call) for call in backend.calls) == 1
    assert len(read_captions(retried.artifact)) == 9
    assert [(row["image"], row["attempt"]) for row in read_failures(retried.artifact)] == [("0007.png", 2)]
    assert all(outcome.passed for outcome in check_captions(Graph(factory), retried.artifact))
    attempts = {row["image_id"]: row["attempt"] for row in read_captions(retried.artifact).to_pylist()}
    assert {image_id for image_id, attempt in attempts.items() if attempt == 2} == set(backend.calls[0])
    # The shard's captions are the new ones from now on, and the old artifact is still there.
    assert caption_shard(factory, "colours", SHARD, ColourBackend).folder == retried.artifact.folder != old.folder
    assert len(read_captions(old)) == 8


def test_an_image_is_tried_as_often_as_its_captioner_allows(broken):
    factory, source = broken
    assert shards_to_retry(factory, "colours") == {}  # not captioned yet
    caption_shard(factory, "colours", SHARD, ColourBackend)
    assert shards_to_retry(factory, "colours") == {SHARD: 2}
    second = retry_failures(factory, "colours", SHARD, ColourBackend)
    assert (second.tried, second.captioned, second.given_up) == (2, 0, 0)
    third = retry_failures(factory, "colours", SHARD, ColourBackend)
    assert (third.tried, third.captioned, third.given_up) == (2, 0, 2)
    for number in (2, 7):
        restore(source, number)
    assert retry_failures(factory, "colours", SHARD, ColourBackend) is None  # three attempts were all


def test_a_shard_without_failures_and_one_that_is_not_captioned_have_nothing_to_redo(write_source, make_factory):
    factory = ingested(make_factory(write_source(4)))
    assert retry_failures(factory, "colours", SHARD, ColourBackend) is None
    caption_shard(factory, "colours", SHARD, ColourBackend)
    assert retry_failures(factory, "colours", SHARD, ColourBackend) is None


def test_a_killed_retry_is_finished_by_the_next_run(broken):
    factory, source = broken
    caption_shard(factory, "colours", SHARD, ColourBackend)
    restore(source, 2)

    class Killed(ColourBackend):
        def generate(self, prepared):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retry_failures(factory, "colours", SHARD, Killed)
    made = caption_shard(factory, "colours", SHARD, ColourBackend)
    assert [(row["image"], row["attempt"]) for row in read_failures(made)] == [("0007.png", 2)]


def test_over_many_shards_the_captioner_is_loaded_once(write_source, make_factory):
    source = write_source(30)
    factory = ingested(make_factory(source))
    (source / "images" / "0003.png").unlink()
    (source / "images" / "0025.png").unlink()
    for shard in shard_names(factory):
        caption_shard(factory, "colours", shard, ColourBackend)
    loads = []

    def load(settings, store):
        loads.append(settings)
        return ColourBackend()

    with track("captions", "images") as bar:
        redone = dict(retry_every_shard(factory, "colours", load, bar))
    assert list(redone) == ["shard-00000", "shard-00002"]
    assert len(loads) == 1


def test_the_command_redoes_failures_with_the_real_captioner(write_source, make_factory, tmp_path):
    source = write_source(4)
    factory = ingested(make_factory(source))
    (source / "images" / "0001.png").unlink()
    caption_shard(factory, "colours", SHARD, ColourBackend)
    restore(source, 1)
    result = CliRunner().invoke(main, ["retry", str(tmp_path / "factory.yaml")])
    assert result.exit_code == 0, result.output
    assert "captions/colours [shard-00000]: 1 tried again, 1 captioned, 0 failed again; 0 given up" in result.output
    assert "captions/colours" not in CliRunner().invoke(main, ["retry", str(tmp_path / "factory.yaml")]).stdout
