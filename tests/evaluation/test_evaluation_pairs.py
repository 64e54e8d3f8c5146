import json
import time
from pathlib import Path

import pytest
from evaluation_sources import COCO, write_image, write_karpathy

from caploom.errors import ConfigError, EvaluationError, SourceError
from caploom.stages.evaluation_sets import evaluation_set
from caploom.storage.records import EVALUATION_PAIRS
from caploom.storage.tables import read_table


@pytest.fixture
def made(write_source, make_factory):
    """The evaluation set of the given settings."""

    def make(settings):
        return evaluation_set(make_factory(write_source(1), evaluation_sets={"set": settings}), "set")

    return make


def images_of(artifact):
    table = read_table(artifact.file("pairs.parquet"))
    assert table.schema == EVALUATION_PAIRS
    return table.to_pylist()


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> dict:
    return write_karpathy(tmp_path_factory.mktemp("coco"), COCO)


@pytest.fixture(scope="module")
def flickr(coco, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("flickr")
    return write_karpathy(folder, [5] * 1_000, dataset="flickr30k", drawn=Path(coco["root"]))


def test_coco_5k_has_all_captions_of_its_5000_images(made, coco):
    started = time.process_time()
    artifact = made({**coco, "protocol": "coco-5k"})
    assert time.process_time() - started < 10
    images = images_of(artifact)
    assert len(images) == 5_000
    assert images[-1]["captions"] == [f"caption {place} of picture 4999" for place in range(8)]
    assert {image["fold"] for image in images} == {None}
    summary = artifact.manifest.summary
    assert (summary["images"], summary["captions"]) == (5_000, 25_010)
    assert summary["captions_per_image"] == {"min": 5, "median": 5, "max": 8}
    assert summary["protocol"] == "coco-5k: 5,000 images, 25,010 captions"
    assert made({**coco, "protocol": "coco-5k"}).reused


def test_coco_5k_with_five_captions_each_says_so(made, coco):
    artifact = made({**coco, "protocol": "coco-5k", "captions_per_image": 5})
    assert artifact.manifest.summary["protocol"] == "coco-5k: 5,000 images, 25,000 captions"


def test_coco_1k_is_five_folds_in_the_files_order_with_the_first_five_captions(made, coco):
    artifact = made({**coco, "protocol": "coco-1k"})
    images = images_of(artifact)
    assert [image["fold"] for image in images] == [fold for fold in range(5) for _ in range(1_000)]
    assert [image["image"] for image in images] == [f"val2014/{number:06d}.ppm" for number in range(5_000)]
    assert images[-1]["captions"] == [f"caption {place} of picture 4999" for place in range(5)]
    assert artifact.manifest.summary["protocol"] == "coco-1k: 5,000 images, 25,000 captions in 5 folds"
    rows = artifact.manifest.rows
    assert (rows.rows_in, rows.rows_out, rows.reasons) == (25_010, 25_000, {"beyond_protocol": 10})


def test_flickr30k_1k(made, flickr):
    artifact = made({**flickr, "protocol": "flickr30k-1k"})
    assert artifact.manifest.summary["protocol"] == "flickr30k-1k: 1,000 images, 5,000 captions"


@pytest.mark.parametrize(
    ("captions", "protocol", "words"),
    [
        ([5] * 1_014, "flickr30k-1k", "must have 1,000 images but has 1,014 .*Flickr30K's validation split"),
        ([5] * 999, "flickr30k-1k", "must have 1,000 images but has 999 .*whole test split"),
        ([5] * 1_000, "coco-5k", "must have 5,000 images but has 1,000"),
        ([5] * 998 + [4, 3], "flickr30k-1k", "2 have fewer .the first is val2014/000998.ppm with 4.: captions are mi"),
        ([1] * 1_000, "flickr30k-1k", "one caption per image, but the protocol needs all five"),
        ([5] * 999 + [6], "flickr30k-1k", "must have 5,000 captions but has 5,001; with `captions_per_image: 5`"),
        ([0] + [5] * 999, "flickr30k-1k", "1 of its rows are unusable; the first: .*image has no caption"),
    ],
)
def test_a_set_that_is_not_what_its_protocol_says_is_refused_with_expected_found_and_cause(
    made, coco, tmp_path, captions, protocol, words
):
    settings = write_karpathy(tmp_path / "set", captions, dataset=None, drawn=Path(coco["root"]))
    with pytest.raises(EvaluationError, match=f"evaluation set set is not {protocol}: .*{words}"):
        made({**settings, "protocol": protocol})


@pytest.mark.parametrize("split", ["val", ["test", "restval"]])
def test_a_protocol_on_another_split_is_refused_when_the_yaml_is_read(made, tmp_path, split):
    settings = write_karpathy(tmp_path / "set", [5])
    with pytest.raises(ConfigError, match=r'evaluation_sets.set: the protocol coco-5k is for the split "test"'):
        made({**settings, "protocol": "coco-5k", "split": split})


def test_a_protocol_on_another_dataset_is_refused(made, tmp_path):
    settings = write_karpathy(tmp_path / "set", [5], dataset="flickr30k")
    with pytest.raises(EvaluationError, match='for "coco", but its file calls itself "flickr30k"'):
        made({**settings, "protocol": "coco-5k"})


def test_missing_images_of_a_protocol_are_counted_and_the_first_is_named(made, tmp_path):
    settings = write_karpathy(tmp_path / "set", [5] * 1_000, dataset=None)
    for number in (3, 7):
        (tmp_path / "set" / "images" / "val2014" / f"{number:06d}.ppm").unlink()
    with pytest.raises(EvaluationError, match=r"2 of the 1,000 images .* The first: .*000003\.ppm: there is no such"):
        made({**settings, "protocol": "flickr30k-1k"})


def test_few_copies_count_under_a_protocol_and_many_are_a_broken_copy(made, tmp_path):
    settings = write_karpathy(tmp_path / "set", [5] * 1_000, dataset=None)
    for number in range(10):
        write_image(tmp_path / "set" / "images" / "val2014" / f"{number:06d}.ppm", 500)
    artifact = made({**settings, "protocol": "flickr30k-1k"})
    assert [len(image["captions"]) for image in images_of(artifact)] == [5] * 1_000
    assert "under a second name: 10;" in artifact.manifest.summary["note"]
    write_image(tmp_path / "set" / "images" / "val2014" / "000010.ppm", 500)
    Path(settings["captions"]).write_text(Path(settings["captions"]).read_text() + " ")
    with pytest.raises(EvaluationError, match="of the 1,000 image files of flickr30k-1k only 989 differ"):
        made({**settings, "protocol": "flickr30k-1k"})


@pytest.mark.parametrize(
    ("captions", "split", "words"),
    [([5] * 3, "test", "has 3 and 15: its recalls cannot be compared"), ([5] * 3, "val", None)],
)
def test_a_known_test_split_without_a_protocol_gets_a_note(made, tmp_path, captions, split, words):
    settings = write_karpathy(tmp_path / "set", captions, split=split)
    note = made({**settings, "split": split}).manifest.summary.get("note")
    assert note is None if words is None else words in note


def test_the_whole_test_split_without_a_protocol_is_told_its_name(made, flickr):
    assert "`protocol: flickr30k-1k`" in made(flickr).manifest.summary["note"]


def test_without_a_protocol_bad_rows_are_failures_and_the_rest_is_the_set(made, tmp_path):
    settings = write_karpathy(tmp_path / "set", [3, 0, 1, 2])
    (tmp_path / "set" / "images" / "val2014" / "000002.ppm").unlink()
    artifact = made(settings)
    assert [len(image["captions"]) for image in images_of(artifact)] == [3, 2]
    assert artifact.manifest.rows.reasons == {"no_caption": 1, "missing_image": 1}
    assert artifact.manifest.summary["captions_per_image"] == {"min": 2, "median": 2.5, "max": 3}
    detail = read_table(artifact.file("failures.parquet"))["detail"].to_pylist()[0]
    assert "image has no caption" in detail


def test_a_caption_said_twice_in_one_record_stays_and_a_repeated_record_is_a_failure(made, tmp_path):
    write_image(tmp_path / "set" / "a.ppm", 1)
    records = [{"image": "a.ppm", "captions": ["x", "x", "y"]}, {"image": "a.ppm", "caption": "x"}]
    (tmp_path / "captions.json").write_text(json.dumps([*records, {"image": "a.ppm", "caption": "z"}]))
    artifact = made(
        {"reader": "image_captions", "root": str(tmp_path / "set"), "captions": str(tmp_path / "captions.json")}
    )
    assert [image["captions"] for image in images_of(artifact)] == [["x", "x", "y", "z"]]
    assert artifact.manifest.rows.reasons == {"duplicate_pair": 1}


def test_any_source_can_name_a_protocol(made, tmp_path):
    lines = ["image,caption"]
    for number in range(1_000):
        write_image(tmp_path / "set" / f"{number}.ppm", number)
        lines += [f"{number}.ppm,caption {place}" for place in range(5)]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    settings = {"reader": "image_captions", "root": str(tmp_path / "set"), "captions": str(tmp_path / "captions.csv")}
    assert made({**settings, "protocol": "flickr30k-1k"}).manifest.summary["captions"] == 5_000


def test_a_changed_file_is_another_set_and_an_unusable_one_is_refused(made, tmp_path):
    settings = write_karpathy(tmp_path / "set", [2, 1])
    first = made(settings)
    assert made(settings).reused
    write_karpathy(tmp_path / "set", [2, 2])
    assert made(settings).manifest.address != first.manifest.address
    for image in (tmp_path / "set" / "images" / "val2014").iterdir():
        image.unlink()
    write_file = Path(settings["captions"])
    write_file.write_text(write_file.read_text() + " ")
    with pytest.raises(EvaluationError, match=r"set set has no usable pair: .*there is no such file"):
        made(settings)
    write_file.unlink()
    with pytest.raises(SourceError, match="there is no such file"):
        made(settings)
