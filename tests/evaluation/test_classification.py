import json

import numpy as np
import open_clip
import pytest
import torch
from evaluation_sources import write_image
from PIL import Image

from caploom.errors import ConfigError, EvaluationError, SourceError
from caploom.evaluation.classification import classify, label_ranks, prompts, text_classifier, wilson_interval
from caploom.evaluation.classification_images import Classes, set_classes
from caploom.evaluation.embeddings import ClipEncoder
from caploom.stages.evaluation_sets import evaluated_images, evaluation_set
from caploom.storage.records import CLASSIFICATION_IMAGES, PREDICTIONS
from caploom.storage.tables import read_table
from caploom.training.clip_model import create_clip_model

torch.set_num_threads(1)
CPU = torch.device("cpu")
CLASSES = ["apple", "bus", "cat", "dog", "ice_cream", "owl", "tent"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    architecture = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    file = tmp_path_factory.mktemp("model") / "tiny.json"
    file.write_text(json.dumps(architecture))
    return create_clip_model(str(file), seed=0)


class VectorEncoder:
    """Embeds a text as the vector that it is given for it."""

    def __init__(self, vectors):
        self.vectors = vectors

    def embed_texts(self, texts, progress=None):
        vectors = np.asarray([self.vectors[text] for text in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def folders(tmp_path):
    """Three noisy images in each of seven class folders."""
    random = np.random.default_rng(0)
    for label in CLASSES:
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture
def factory_of(write_source, make_factory):
    def make(settings):
        settings = {"reader": "image_folders", **settings}
        return make_factory(write_source(1), evaluation_sets={"set": settings})

    return make


def test_class_folders_are_classes_and_underscores_are_blanks(folders, factory_of):
    (folders / "apple" / "notes.txt").write_text("no image")
    (folders / "bus" / "broken.jpg").write_text("no image")
    factory = factory_of({"root": str(folders)})
    artifact = evaluation_set(factory, "set")
    table = read_table(artifact.file("images.parquet"))
    assert table.schema == CLASSIFICATION_IMAGES
    assert table["label"].to_pylist() == [label for label in range(7) for _ in range(3)]
    assert set_classes(artifact) == Classes(tuple(CLASSES), (*CLASSES[:4], "ice cream", *CLASSES[5:]))
    rows = artifact.manifest.rows
    assert (rows.rows_in, rows.rows_out, rows.reasons) == (22, 21, {"undecodable_image": 1})
    assert artifact.manifest.summary["images_per_class"] == {"min": 3, "max": 3}
    assert sum(len(batch) for batch in evaluated_images(artifact)) == 21
    assert evaluation_set(factory, "set").reused
    write_image(folders / "owl" / "more.ppm", 1)
    assert not evaluation_set(factory, "set").reused


def test_names_come_from_the_yaml_and_a_class_without_images_is_still_a_class(folders, factory_of):
    names = {label: f"a {label}" for label in CLASSES} | {"zebra": "a zebra"}
    artifact = evaluation_set(factory_of({"root": str(folders), "classes": names}), "set")
    assert set_classes(artifact).names == tuple(names.values())
    assert artifact.manifest.summary["images_per_class"] == {"min": 0, "max": 3}


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_labels_come_from_a_file(folders, factory_of, tmp_path, suffix):
    records = [("owl/0.png", "bird"), ("cat/0.png", "cat"), ("dog/1.png", "dog "), ("../x.png", "dog")]
    file = tmp_path / f"labels.{suffix}"
    if suffix == "json":
        file.write_text(json.dumps([{"image": image, "label": label} for image, label in records]))
    else:
        file.write_text("\n".join(["image,label", *(",".join(record) for record in records)]))
    artifact = evaluation_set(factory_of({"root": str(folders), "labels": str(file)}), "set")
    assert set_classes(artifact).labels == ("bird", "cat", "dog")
    assert read_table(artifact.file("images.parquet"))["label"].to_pylist() == [0, 1, 2]
    assert artifact.manifest.rows.reasons == {"path_leaves_root": 1}


def test_imagenet_needs_a_thousand_folders_called_by_their_ids(factory_of, tmp_path):
    root = tmp_path / "imagenet"
    for number in range(1_000):
        (root / f"n{number:08d}").mkdir(parents=True)
    write_image(root / "n00000002" / "x.ppm", 1)
    settings = {"root": str(root), "classes": "imagenet", "templates": "openai-imagenet"}
    artifact = evaluation_set(factory_of(settings), "set")
    assert set_classes(artifact).names[:2] == ("tench", "goldfish")
    assert read_table(artifact.file("images.parquet"))["label"].to_pylist() == [2]
    (root / "n00000000").rename(root / "tench")
    with pytest.raises(
        EvaluationError, match=r'needs 1,000 class folders .* are 1,000, and "tench" is not a WordNet id'
    ):
        evaluation_set(factory_of(settings), "set")
    (root / "tench").rmdir()
    with pytest.raises(EvaluationError, match="but there are 999;"):
        evaluation_set(factory_of(settings), "set")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"root": "/nowhere/at/all"}, SourceError, "there is no such folder; correct `root`"),
        ({"labels": "/nowhere.csv"}, SourceError, "/nowhere.csv: there is no such file; correct `labels`"),
        ({"classes": {"apple": "apple"}}, EvaluationError, r'`classes` has no name for "bus" .and 5 others'),
        ({"root": "owl"}, EvaluationError, "has 0 classes but needs at least two; `root` must be a folder of class"),
        ({"classes": {"a": "x", "b": "x"}}, ConfigError, 'two classes have the name "x"'),
        ({"templates": ["a photo"]}, ConfigError, r'the template "a photo" must have "\{\}" once'),
        ({"templates": []}, ConfigError, "at least one template is needed"),
        ({"templates": "imagenet"}, ConfigError, '"imagenet" is not a list of templates; allowed: openai-im'),
        ({"protocol": "coco-5k"}, ConfigError, 'there is no key "protocol" here'),
    ],
)
def test_a_set_that_cannot_be_used_is_refused_in_a_sentence(folders, factory_of, changes, error, words):
    if changes.get("root") == "owl":
        changes = {"root": str(folders / "owl")}
    with pytest.raises(error, match=words):
        evaluation_set(factory_of({"root": str(folders), **changes}), "set")


@pytest.mark.parametrize("templates", [["a photo of a {}.", "{} drawn", "my {}"], "simple-imagenet"])
def test_classifier_and_accuracies_are_open_clips(model, folders, factory_of, tmp_path, templates):
    artifact = evaluation_set(factory_of({"root": str(folders)}), "set")
    classes = set_classes(artifact)
    asked = open_clip.SIMPLE_IMAGENET_TEMPLATES if isinstance(templates, str) else templates
    with torch.no_grad():
        theirs = open_clip.build_zero_shot_classifier(
            model.network.eval(), model.tokenize, classes.names, asked, num_classes_per_batch=3
        )
    ours = text_classifier(ClipEncoder(model, CPU), classes.names, prompts(templates))
    assert ours.shape == (7, 16)
    assert ours == pytest.approx(theirs.T.numpy(), abs=2e-6)

    (tmp_path / "out").mkdir()
    seen = []
    metrics = classify(
        ClipEncoder(model, CPU),
        artifact.file("images.parquet"),
        classes,
        templates,
        out=tmp_path / "out",
        progress=lambda done, total: seen.append((done, total)),
    )
    table = read_table(artifact.file("images.parquet"))
    images = ClipEncoder(model, CPU).embed_images(table["path"].to_pylist(), table["image_id"].to_pylist())
    logits = torch.from_numpy(images) @ theirs
    labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
    best = logits.topk(5, dim=1).indices
    assert metrics.accuracy[1] == pytest.approx((best[:, 0] == labels).float().mean().item())
    assert metrics.accuracy[5] == pytest.approx((best == labels[:, None]).any(dim=1).float().mean().item())
    of_class = [(best[:, 0] == labels)[labels == place].float().mean().item() for place in range(7)]
    assert metrics.mean_per_class_recall == pytest.approx(np.mean(of_class))

    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written == metrics.to_dict()
    assert (written["kind"], written["images"], written["classes"]) == ("classification", 21, 7)
    assert (written["templates"], written["chance_top5"]) == (len(asked), 5 / 7)
    assert seen[-1] == (7 * len(asked) + 21, 7 * len(asked) + 21)
    predictions = read_table(tmp_path / "out" / "predictions.parquet")
    assert predictions.schema == PREDICTIONS
    assert predictions["predicted"].to_pylist() == [classes.labels[place] for place in best[:, 0]]
    right = np.asarray(predictions["predicted"].to_pylist()) == np.asarray(predictions["label"].to_pylist())
    assert (right == (predictions["rank"].to_numpy() == 1)).all()


def test_ranks_are_those_of_a_slow_oracle_and_a_tie_counts_against_us():
    random = np.random.default_rng(1)
    classifier = random.normal(size=(9, 12))
    classifier[6] = classifier[2]
    classifier /= np.linalg.norm(classifier, axis=1, keepdims=True)
    images = random.normal(size=(400, 12)).astype(np.float32)
    labels = random.integers(0, 9, 400)
    ranks, best, own, best_scores = label_ranks(images, classifier, labels)
    for image, label, rank, predicted in zip(images, labels, ranks, best, strict=True):
        scores = [sum(float(a) * float(b) for a, b in zip(image, vector, strict=True)) for vector in classifier]
        others = [place for place in range(9) if place != label and scores[place] >= scores[label] - 1e-12]
        assert rank == 1 + len(others)
        assert (predicted == label) == (not others)
        assert scores[predicted] == pytest.approx(max(scores))
    assert (ranks[np.isin(labels, (2, 6))] > 1).all()
    assert (best_scores >= own - 1e-11).all()


def test_five_best_are_reported_only_where_there_are_more_classes_and_equal_names_are_told(model, tmp_path, factory_of):
    for label in ("a", "b"):
        write_image(tmp_path / "images" / label / "x.ppm", ord(label))
    artifact = evaluation_set(factory_of({"root": str(tmp_path / "images")}), "set")
    classes = Classes(("a", "b"), ("thing", "thing"))
    metrics = classify(ClipEncoder(model, CPU), artifact.file("images.parquet"), classes, ["a {}"], out=tmp_path)
    assert metrics.accuracy == {1: 0.0}
    assert metrics.to_dict()["classes_with_the_same_name"] == 2
    assert "top5" not in metrics.to_dict()


def test_templates_and_prompts_of_many_classes_go_through_in_blocks(monkeypatch):
    monkeypatch.setattr("caploom.evaluation.classification._TEXTS_AT_ONCE", 4)
    random = np.random.default_rng(2)
    names = [f"c{number}" for number in range(7)]
    vectors = {f"{word} {name}": random.normal(size=5) for name in names for word in ("a", "the")}
    ours = text_classifier(VectorEncoder(vectors), names, prompts(["a {}", "the {}"]))
    unit = {text: vector / np.linalg.norm(vector) for text, vector in vectors.items()}
    for name, vector in zip(names, ours, strict=True):
        mean = (unit[f"a {name}"] + unit[f"the {name}"]) / 2
        assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_embeddings_that_are_no_numbers_are_refused(tmp_path, factory_of):
    for label in ("a", "b"):
        write_image(tmp_path / "images" / label / "x.ppm", ord(label))
    artifact = evaluation_set(factory_of({"root": str(tmp_path / "images")}), "set")

    class Broken(VectorEncoder):
        def embed_images(self, paths, image_ids, progress=None):
            return np.full((2, 2), np.nan, np.float32)

    encoder = Broken({"a": [1, 0], "b": [0, 1]})
    with pytest.raises(EvaluationError, match=r"embedding of image number 1 is not a number \(and 1 others\)"):
        classify(encoder, artifact.file("images.parquet"), set_classes(artifact), ["{}"], out=tmp_path)


@pytest.mark.parametrize(
    ("found", "of", "interval"), [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (81, 263, (0.2553, 0.3662))]
)
def test_wilson_intervals_are_the_published_ones(found, of, interval):
    """81 of 263 is Newcombe's example (1998), table I, method 3."""
    assert wilson_interval(found, of) == pytest.approx(interval, abs=1e-4)
