"""Evaluation sets take every reader: the same pictures and captions are the same set, wherever they lie."""

import io
import json
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_factory import picture

from caploom.evaluation.evaluate import evaluate_encoder
from caploom.evaluation.load_encoder import load_encoder
from caploom.stages.evaluation_sets import evaluation_set
from caploom.storage.tables import read_table
from caploom.training.clip_model import create_clip_model, save_checkpoint

COUNT = 12
CAPTIONS = [f"picture number {number}" for number in range(COUNT)]


def image_bytes(number):
    file = io.BytesIO()
    picture(number).resize((64, 64)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """By reader, the settings of a set of the same pictures; each form has one picture more, without a caption."""
    folder = tmp_path_factory.mktemp("forms")
    images = folder / "images"
    images.mkdir()
    everything = [*enumerate(CAPTIONS), (COUNT, None)]
    for number, _ in everything:
        (images / f"{number}.png").write_bytes(image_bytes(number))
    table = [{"image": f"{number}.png", "caption": caption} for number, caption in everything]
    (folder / "captions.json").write_text(json.dumps(table))
    coco = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number, _ in everything],
        "annotations": [{"image_id": number, "caption": caption} for number, caption in everything if caption],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    karpathy = [
        {"filename": f"{number}.png", "split": "test", "sentences": [{"raw": caption}] if caption else []}
        for number, caption in everything
    ]
    (folder / "karpathy.json").write_text(json.dumps({"images": karpathy, "dataset": "own"}))
    shutil.copytree(images, folder / "texts")
    for number, caption in everything:
        if caption:
            (folder / "texts" / f"{number}.txt").write_text(caption)
    with tarfile.open(folder / "set.tar", "w") as tar:
        for number, caption in everything:
            for ending, data in (("png", image_bytes(number)), *([("txt", caption.encode())] if caption else [])):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    columns = {"image": [image_bytes(number) for number, _ in everything], "caption": [text for _, text in everything]}
    pq.write_table(pa.table(columns), folder / "set.parquet")
    root = str(images)
    return {
        "image_captions": {"root": root, "captions": str(folder / "captions.json")},
        "coco": {"root": root, "captions": str(folder / "coco.json")},
        "karpathy": {"root": root, "captions": str(folder / "karpathy.json")},
        "image_folder": {"root": str(folder / "texts")},
        "webdataset": {"tars": str(folder / "set.tar")},
        "parquet": {"files": str(folder / "set.parquet")},
    }


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(create_clip_model("picture-book", seed=0), folder)
    return load_encoder(folder)


@pytest.mark.parametrize("reader", ["image_captions", "coco", "karpathy", "image_folder", "webdataset", "parquet"])
def test_a_set_is_the_same_and_is_measured_in_every_form(forms, encoder, write_source, make_factory, tmp_path, reader):
    sets = {"set": {"reader": reader, **forms[reader]}}
    artifact = evaluation_set(make_factory(write_source(1), evaluation_sets=sets), "set")
    images = read_table(artifact.file("pairs.parquet")).to_pylist()
    assert sorted(caption for image in images for caption in image["captions"]) == sorted(CAPTIONS)
    assert artifact.manifest.rows.rows_failed == 1  # without a caption there is nothing to retrieve
    out = tmp_path / "measured"
    out.mkdir()
    measured = evaluate_encoder(encoder, artifact.file("pairs.parquet"), out=out)
    assert (out / "ranks.parquet").exists()
    assert measured is not None
