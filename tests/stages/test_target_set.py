import json

import pytest
from evaluation_sources import write_image, write_karpathy

from caploom.errors import TrainingError
from caploom.stages.target_set import target_set
from caploom.storage.records import TRAINING_ROWS
from caploom.storage.tables import read_table
from caploom.training_set.write import training_files


@pytest.fixture
def factory(write_source, make_factory):
    """A factory with that target set; its recipe is fine-tuned on it where it has such an evaluation set."""

    def make(settings, **evaluation_sets):
        finetune = {"finetune": {"target_set": "coco", "trainer": "small"}} if evaluation_sets else {}
        source = write_source(2)
        reader = {"reader": "image_captions", "root": str(source / "images"), "captions": str(source / "captions.json")}
        return make_factory(
            source,
            target_sets={"coco": settings},
            evaluation_sets={"same": reader, **evaluation_sets},
            recipes={"r": {"captioners": [], **finetune}},
        )

    return make


def rows_of(artifact):
    return [row for file in training_files(artifact) for row in read_table(file).to_pylist()]


def test_each_image_is_a_row_with_all_its_captions_equally_likely(factory, tmp_path):
    settings = write_karpathy(tmp_path / "coco", [5, 2, 0, 3], split="train")
    (tmp_path / "coco" / "images" / "val2014" / "000003.ppm").unlink()
    made = factory({**settings, "split": "train"})
    artifact = target_set(made, "coco")
    assert read_table(training_files(artifact)[0]).schema == TRAINING_ROWS
    rows = {row["image"]: row for row in rows_of(artifact)}
    assert set(rows) == {"val2014/000000.ppm", "val2014/000001.ppm"}
    row = rows["val2014/000000.ppm"]
    assert sorted(row["captions"]) == [f"caption {place} of picture 0" for place in range(5)]
    assert row["sources"] == ["target"] * 5
    assert row["weights"] == pytest.approx([0.2] * 5)
    count = artifact.manifest.rows
    assert (count.rows_in, count.rows_out, count.reasons) == (11, 7, {"no_caption": 1, "missing_image": 3})
    summary = artifact.manifest.summary
    assert (summary["images"], summary["captions"], summary["reader"]["reader"]) == (2, 7, "karpathy")
    assert sorted(path.name for path in artifact.folder.iterdir()) == [
        "failures.parquet",
        "manifest.json",
        "rows-00000.parquet",
    ]
    assert target_set(made, "coco").reused


def test_the_order_is_that_of_the_identities_whatever_the_files_order(factory, tmp_path):
    records = []
    for number in range(30):
        write_image(tmp_path / "images" / f"{number}.ppm", number)
        records += [{"image": f"{number}.ppm", "caption": f"{word} {number}"} for word in ("a", "b")]
    settings = {
        "reader": "image_captions",
        "root": str(tmp_path / "images"),
        "captions": str(tmp_path / "c.json"),
    }
    orders = []
    for rows in (records, records[::-1]):
        (tmp_path / "c.json").write_text(json.dumps(rows))
        artifact = target_set(factory(settings), "coco")
        orders.append((artifact.data_version, [row["image"] for row in rows_of(artifact)]))
    assert orders[0] == orders[1]
    assert orders[0][1] != [f"{number}.ppm" for number in range(30)]


def test_a_row_that_stands_twice_is_counted_and_kept_once(factory, tmp_path):
    write_image(tmp_path / "images" / "a.ppm", 1)
    (tmp_path / "c.json").write_text(json.dumps([{"image": "a.ppm", "captions": ["x", "x", "y"]}]))
    settings = {"reader": "image_captions", "root": str(tmp_path / "images"), "captions": str(tmp_path / "c.json")}
    artifact = target_set(factory(settings), "coco")
    assert rows_of(artifact)[0]["captions"] == ["x", "y"]
    assert artifact.manifest.rows.reasons == {"repeated_caption": 1}


def test_a_set_without_a_usable_row_is_refused_with_the_first_reason(factory, tmp_path):
    settings = write_karpathy(tmp_path / "coco", [2])
    (tmp_path / "coco" / "images" / "val2014" / "000000.ppm").unlink()
    with pytest.raises(TrainingError, match=r"target set coco has no usable row: .*000000.ppm: there is no such file"):
        target_set(factory(settings), "coco")


def test_training_on_the_test_set_is_refused_under_whatever_name_its_images_lie(factory, tmp_path):
    settings = write_karpathy(tmp_path / "coco", [2, 2, 2], split="train")
    test = write_karpathy(tmp_path / "test", [1, 1])
    write_image(tmp_path / "test" / "images" / "val2014" / "000000.ppm", 77)
    made = factory({**settings, "split": "train"}, test=test)
    words = r"target set coco has 1 of the 2 images of the evaluation set test \(the first: .*test/.*000001.ppm\)"
    for _ in range(2):  # the second time it is made already
        with pytest.raises(TrainingError, match=words):
            target_set(made, "coco")


def test_the_same_names_for_other_pictures_are_no_leak(factory, tmp_path):
    settings = write_karpathy(tmp_path / "coco", [2, 2, 2], split="train")
    test = write_karpathy(tmp_path / "test", [1, 1])
    for number in range(2):
        write_image(tmp_path / "test" / "images" / "val2014" / f"{number:06d}.ppm", 100 + number)
    assert target_set(factory({**settings, "split": "train"}, test=test), "coco").manifest.summary["images"] == 3
