import json
import random
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from asked_factory import IMAGES, NASTY, captioned, measured, write_factory

from caploom.captioning.ledger import Ledger
from caploom.errors import StoreError
from caploom.questions.trace.rows import rows_of_image
from caploom.questions.trace.text import trace_markdown, trace_text
from caploom.questions.trace.trace_image import trace_image
from caploom.stages.training_set import ORDER_SEED
from caploom.storage.records import TRAINING_ROWS, image_identity
from caploom.storage.tables import read_table, write_table
from caploom.training_set.order import image_ids, order_keys
from caploom.training_set.write import training_files


def image_of(factory, number):
    root = Path(factory.config.pairs.root)
    return image_identity((root / f"{number:04d}.png").read_bytes())


@pytest.mark.parametrize("number", range(IMAGES))
def test_each_training_sets_rows_are_found_as_they_stand(asked, number):
    image_id = image_of(asked, number)
    trace = trace_image(asked.store, image_id)
    assert {each.name for each in trace.training_sets} == {"raw-only", "sheared"}
    for each in trace.training_sets:
        (artifact,) = asked.store.list("training_set", each.name)
        (row,) = [
            row
            for file in training_files(artifact)
            for row in read_table(file).to_pylist()
            if row["image_id"] == image_id
        ]
        landed = [said for said in each.captions if said.weight is not None]
        assert [said.caption for said in landed] == row["captions"]
        assert [said.source for said in landed] == row["sources"]
        assert [said.weight for said in landed] == pytest.approx(row["weights"], abs=1e-6)


def test_what_was_dropped_has_its_reason(asked):
    for number in (0, 1, 2):
        trace = trace_image(asked.store, image_of(asked, number))
        (sheared,) = [each for each in trace.training_sets if each.name == "sheared"]
        colours = [said for said in sheared.captions if said.source == "colours"]
        expected = None if number in (0, 1) else 0.5  # red and green squares are four each, the others three
        assert [said.weight for said in colours] == [expected]
        assert [said.reason for said in colours] == ["dropped: max_repeats" if expected is None else ""]


def test_a_caption_that_was_given_twice_is_told_once_more(asked):
    trace = trace_image(asked.store, "0003.png")
    (sheared,) = [each for each in trace.training_sets if each.name == "sheared"]
    colours = [(said.weight, said.reason) for said in sheared.captions if said.source == "colours"]
    assert colours == [
        (pytest.approx(1 / 3, abs=1e-6), ""),
        (None, "the same caption of the same source is there already"),
    ]


def test_captions_shears_and_ranks_are_told(asked):
    trace = trace_image(asked.store, "0003.png")
    assert [pair.caption for pair in trace.pairs] == ["photo 3", "photo 3, again"]
    caption, again = trace.captions  # its two pairs are in two shards
    assert (caption.text, caption.shard, again.shard) == (again.text, "shard-00000", "shard-00001")
    assert (caption.captioner, caption.prompt) == ("colours", "Describe <image>:")
    (shear,) = caption.sheared
    assert shear.before + shear.kept + shear.after == caption.text
    assert (shear.kept, shear.after) == ("A white square.", " It is said to hide a dragon.")
    assert trace.evaluation_sets == ("held-out",)
    for rank in trace.ranks:
        (metrics,) = asked.store.list("retrieval_metrics", rank.recipe)
        ranks = read_table(metrics.file("zero-shot/held-out/ranks.parquet")).to_pylist()
        by_query = {row["query"]: row["rank"] for row in ranks}
        assert rank.image_to_text == by_query[trace.image_id]
        assert rank.text_to_image == (("a picture of number 3", by_query[f"{trace.image_id}#0"]),)
    assert {rank.recipe for rank in trace.ranks} == {"raw-only", "sheared"}
    text = trace_text(trace)
    assert "A white square.[- It is said to hide a dragon.-]" in text
    assert "~~ It is" in trace_markdown(trace) or "~~It is" in trace_markdown(trace)


def test_an_image_is_named_by_identity_beginning_path_or_file(asked, tmp_path):
    image_id = image_of(asked, 5)
    root = Path(asked.config.pairs.root)
    copy = tmp_path / "another-name.png"
    shutil.copy(root / "0005.png", copy)
    for text in (image_id, image_id[:8], "0005.png", str(root / "0005.png"), str(copy)):
        assert trace_image(asked.store, text).image_id == image_id


def test_an_image_of_an_evaluation_set_alone_is_traced(own_captioned):
    factory = own_captioned
    measured(factory, "raw-only")
    shutil.rmtree(factory.store.root / "raw_pairs")
    trace = trace_image(factory.store, image_of(factory, 4)[:10])
    assert (trace.pairs, trace.evaluation_sets) == ((), ("held-out",))
    assert [rank.image_to_text for rank in trace.ranks] == [1]


def test_a_row_that_failed_is_found_by_its_path(asked):
    trace = trace_image(asked.store, "broken.png")
    assert trace.image_id is None
    assert [failure.stage for failure in trace.failures] == ["raw_pairs"]
    assert "never became a pair" in trace_text(trace)


def test_every_fingerprint_is_told_and_a_shard_under_way_too(own_asked, tmp_path):
    factory = own_asked
    (tmp_path / "again").mkdir()
    captioner = {"model": "demo:tiny-llava", "prompt": "Say <image>:", "batch_size": 4}
    again = captioned(
        write_factory(tmp_path / "again", store=str(factory.store.root), captioners={"colours": captioner})
    )
    image_id = image_of(again, 2)
    # The pictures lie in another folder: another source, and other raw pairs of the same images.
    trace = trace_image(factory.store, image_id)
    assert {caption.prompt for caption in trace.captions} == {"Describe <image>:", "Say <image>:"}
    row = {
        "image_id": image_id,
        "captioner": "colours",
        "fingerprint": "0123456789abcdef",
        "text": "half done",
        "tokens": 2,
        "finish_reason": "stop",
        "seconds": 0.1,
        "attempt": 1,
        "pair_id": None,
    }
    Ledger(factory.store, "colours", "0123456789abcdef").append("shard-00000", [row])
    under_way = [each for each in trace_image(factory.store, image_id).captions if each.address == ""]
    assert [(each.text, each.fingerprint) for each in under_way] == [("half done", "0123456789abcdef")]


def test_what_wants_to_be_code_is_text(asked):
    trace = trace_image(asked.store, "0000.png")
    assert trace.pairs[0].caption == NASTY
    assert "\x1b" not in trace_text(trace) and "\x1b" not in json.dumps(trace.to_dict())
    assert "<script>" not in trace_markdown(trace) and "\n|" not in trace_markdown(trace)


def test_an_image_that_nobody_knows_is_refused(asked, tmp_path):
    stranger = tmp_path / "stranger.png"
    stranger.write_bytes(b"no such picture")
    for text in ("9" * 12, "nowhere.png", str(stranger)):
        with pytest.raises(StoreError, match="no image of this store"):
            trace_image(asked.store, text)


def test_a_beginning_of_several_images_is_refused(asked, monkeypatch):
    monkeypatch.setattr("caploom.questions.trace.find._LEAST_DIGITS", 1)
    beginnings = [image_of(asked, number)[0] for number in range(IMAGES)]
    shared = next(each for each in beginnings if beginnings.count(each) > 1)
    with pytest.raises(StoreError, match="give more digits"):
        trace_image(asked.store, shared)


def test_a_table_that_is_gone_is_noted(own_asked):
    factory = own_asked
    (training_set,) = factory.store.list("training_set", "sheared")
    for file in training_files(training_set):
        file.unlink()
    trace = trace_image(factory.store, "0001.png")
    assert trace.captions
    assert [each.name for each in trace.training_sets] == ["raw-only"]
    assert any(f"{training_set.manifest.address}/rows-00000.parquet" in note for note in trace.notes)


@pytest.mark.parametrize("rows_an_image", [1, 3])
@pytest.mark.parametrize("files", [1, 2, 9])
def test_rows_are_found_wherever_the_files_are_cut(tmp_path, files, rows_an_image):
    chance = random.Random(files)
    ids = image_ids(np.random.default_rng(files).integers(0, 256, (30, 32), np.uint8)).to_pylist()
    words = np.array([int(each[:16], 16) for each in ids], np.uint64)
    ids = [ids[place] for place in np.argsort(order_keys(words, ORDER_SEED))]
    rows = [
        {"image_id": each, "image": "i", "path": "p", "captions": [str(number)], "sources": ["raw"], "weights": [1.0]}
        for each in ids[:-1]
        for number in range(rows_an_image)
    ]
    cuts = [0, *sorted(chance.sample(range(1, len(rows)), files - 1)), len(rows)]
    paths = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        paths.append(tmp_path / f"rows-{number:05d}.parquet")
        write_table(pa.Table.from_pylist(rows[start:end], TRAINING_ROWS), paths[-1])
    for each in ids[:-1]:
        found = rows_of_image(paths, each, ORDER_SEED)
        assert [row["captions"] for row in found] == [[str(number)] for number in range(rows_an_image)]
        assert {row["image_id"] for row in found} == {each}
    assert rows_of_image(paths, ids[-1], ORDER_SEED) == []
