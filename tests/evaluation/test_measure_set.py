import json

import pytest
import torch
from evaluation_sources import write_image, write_karpathy

from caploom.evaluation.load_encoder import load_encoder
from caploom.evaluation.measure_set import measure_set
from caploom.stages.evaluation_sets import evaluation_set
from caploom.training.clip_model import create_clip_model, save_checkpoint

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    architecture = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder.parent / "tiny.json").write_text(json.dumps(architecture))
    save_checkpoint(create_clip_model(str(folder.parent / "tiny.json"), seed=0), folder)
    return folder


@pytest.fixture
def measured(write_source, make_factory, tmp_path, checkpoint):
    def measure(settings):
        (tmp_path / "out").mkdir()
        factory = make_factory(write_source(1), evaluation_sets={"set": settings})
        (measurement,) = measure_set(
            "set",
            factory.config.evaluation_sets["set"],
            evaluation_set(factory, "set"),
            load_encoder(checkpoint, "cpu"),
            tmp_path / "out",
        )
        return measurement

    return measure


def test_images_with_captions_are_retrieved(measured, tmp_path):
    metrics = measured(write_karpathy(tmp_path / "set", [2] * 12))
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())["cosine"]
    assert {key: metrics[key] for key in written} == written
    assert (metrics["evaluation_set"], metrics["kind"]) == ("set", "retrieval")
    assert "cannot be compared" in metrics["note"]
    assert (tmp_path / "out" / "ranks.parquet").is_file()


def test_images_with_classes_are_classified(measured, tmp_path):
    for label in ("apple", "owl", "tent"):
        write_image(tmp_path / "set" / label / "x.ppm", ord(label[0]))
    metrics = measured({"reader": "image_folders", "root": str(tmp_path / "set"), "templates": ["a {}", "my {}"]})
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {key: metrics[key] for key in written} == written
    assert (metrics["kind"], metrics["templates"], metrics["chance_top1"]) == ("classification", 2, 1 / 3)
    assert (tmp_path / "out" / "predictions.parquet").is_file()
