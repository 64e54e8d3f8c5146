"""Filters by image-text score, with a real, tiny, briefly trained open_clip model."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from small_factory import COLOURS, colour_name, write_pictures

from caploom.errors import StoreError, TrainingError
from caploom.evaluation.clip_scorer import ClipScorer
from caploom.storage.store import Store
from caploom.training.clip_model import create_clip_model, encode_text, load_checkpoint, save_checkpoint
from caploom.training.images import ImageDecoder
from caploom.training_set.filter_context import FilterContext, Passes
from caploom.training_set.filter_settings import FilterStep
from caploom.training_set.filters import apply_filters, filters_identity, prepare_filters
from caploom.training_set.scores import KIND

torch.set_num_threads(1)

ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def text_of(colour):
    return f"a {colour} square"


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """The folder of a checkpoint that knows the four colours."""
    folder = tmp_path_factory.mktemp("scorer")
    (folder / "tiny.json").write_text(json.dumps(ARCHITECTURE))
    model = create_clip_model(str(folder / "tiny.json"), seed=0)
    refs = write_pictures(folder, 4)
    decoder = ImageDecoder(model.preprocessing)
    images = decoder.normalize(torch.from_numpy(np.stack([decoder.decode(ref.path, ref.image_id) for ref in refs])))
    tokens = model.tokenize([text_of(colour) for colour in COLOURS])
    optimizer = torch.optim.Adam(model.network.parameters(), lr=3e-3)
    for _ in range(60):
        logits = 10 * model.network.encode_image(images, normalize=True) @ encode_text(model.network, tokens).T
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    save_checkpoint(model, folder)
    return folder


def bucket(refs, said):
    """Captions of pictures: `said(number)` is the list of (source, caption)."""
    rows = [
        (ref.image_id, source, caption, ref.image, ref.path)
        for number, ref in enumerate(refs)
        for source, caption in said(number)
    ]
    names = ["image_id", "source", "caption", "image", "path"]
    return pa.table(
        {name: pa.array(values, pa.string()) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    )


def right_and_wrong(number):
    right, wrong = colour_name(number), colour_name(number + 1)
    return [("raw", text_of(wrong)), ("a", text_of(right)), ("b", text_of(wrong))]


@pytest.fixture
def run(tmp_path):
    def run(written, *buckets):
        steps = [TypeAdapter(FilterStep).validate_python(step) for step in written]
        context = FilterContext(Store(tmp_path / "store"), "test", ["a", "b"], ClipScorer)
        prepared = prepare_filters(steps, Passes(lambda: iter(buckets)), context)
        parts = [apply_filters(each, prepared) for each in buckets]
        prepared.refuse_if_all_dropped()
        return pa.concat_tables(kept for kept, _ in parts), pa.concat_tables(dropped for _, dropped in parts)

    return run


def test_the_top_share_is_counted_over_all_captions(tmp_path, scorer, run):
    table = bucket(write_pictures(tmp_path, 12), right_and_wrong)
    kept, dropped = run([{"keep_top": 1 / 3, "model": str(scorer)}], table.slice(0, 15), table.slice(15))
    assert kept["source"].to_pylist() == ["a"] * 12
    assert set(dropped["reason"].to_pylist()) == {"keep_top"}
    assert len(dropped) == 24


def test_the_best_synthetic_captions_of_each_image_stay_and_so_does_the_raw_one(tmp_path, scorer, run):
    table = bucket(write_pictures(tmp_path, 8), right_and_wrong)
    kept, dropped = run([{"best_of_n": 1, "model": str(scorer)}], table)
    assert kept["source"].to_pylist() == ["raw", "a"] * 8
    assert set(dropped["reason"].to_pylist()) == {"best_of_n"}
    assert run([{"best_of_n": 2, "model": str(scorer)}], table)[0].equals(table)


def test_a_score_is_the_cosine_whatever_the_batch_and_the_order(tmp_path, scorer):
    refs = write_pictures(tmp_path, 7)
    table = bucket(refs, right_and_wrong)
    settings = TypeAdapter(FilterStep).validate_python({"best_of_n": 1, "model": str(scorer), "batch_size": 3})
    scores = ClipScorer(settings).score(table)
    model = load_checkpoint(scorer)
    decoder = ImageDecoder(model.preprocessing)
    with torch.inference_mode():
        for row, score in zip(table.to_pylist(), scores, strict=True):
            image = decoder.normalize(torch.from_numpy(decoder.decode(row["path"], row["image_id"]))[None])
            expected = torch.cosine_similarity(
                model.network.encode_image(image), model.network.encode_text(model.tokenize([row["caption"]]))
            )
            assert score == pytest.approx(expected.item(), abs=1e-5)


def test_scores_are_computed_once_and_shared(tmp_path, scorer, run):
    refs = write_pictures(tmp_path, 6)
    table = bucket(refs, right_and_wrong)
    run([{"keep_top": 0.5, "model": str(scorer)}], table)
    store = Store(tmp_path / "store")
    (first,) = store.list(KIND)
    assert first.manifest.rows.rows_out == 18
    # Without the images nothing could be scored again: another share, another filter, another cut into buckets.
    for ref in refs:
        Path(ref.path).unlink()
    run(
        [{"keep_top": 0.2, "model": str(scorer)}, {"best_of_n": 1, "model": str(scorer)}],
        table.slice(9),
        table.slice(0, 9),
    )
    assert [artifact.manifest.address for artifact in store.list(KIND)] == [first.manifest.address]


def test_only_new_captions_are_scored(tmp_path, scorer, run):
    table = bucket(write_pictures(tmp_path, 6), right_and_wrong)
    run([{"best_of_n": 1, "model": str(scorer)}], table)
    run([{"keep_top": 0.5, "model": str(scorer)}], table)
    # The raw captions of these pictures equal b's, so that there was nothing new: the key is the text, not the source.
    assert [artifact.manifest.rows.rows_out for artifact in Store(tmp_path / "store").list(KIND)] == [12]
    more = bucket(write_pictures(tmp_path, 8), right_and_wrong)
    run([{"keep_top": 0.5, "model": str(scorer)}], more)
    assert sorted(artifact.manifest.rows.rows_out for artifact in Store(tmp_path / "store").list(KIND)) == [6, 12]


def test_captions_of_an_unreadable_image_are_dropped_as_not_scored_and_tried_again(tmp_path, scorer, run):
    refs = write_pictures(tmp_path, 4)
    table = bucket(refs, right_and_wrong)
    held = Path(refs[1].path).read_bytes()
    Path(refs[1].path).unlink()
    _, dropped = run([{"best_of_n": 1, "model": str(scorer)}], table)
    lost = [row["source"] for row in dropped.to_pylist() if row["reason"] == "not_scored"]
    assert lost == ["a", "b"]
    assert {row["image_id"] for row in dropped.to_pylist() if row["reason"] == "not_scored"} == {refs[1].image_id}
    Path(refs[1].path).write_bytes(held)
    assert "not_scored" not in run([{"best_of_n": 1, "model": str(scorer)}], table)[1]["reason"].to_pylist()


def test_weights_in_a_file_score_as_their_checkpoint_does(tmp_path, scorer, run):
    table = bucket(write_pictures(tmp_path, 4), right_and_wrong)
    torch.save(load_checkpoint(scorer).network.state_dict(), tmp_path / "weights.pt")
    for weights in (scorer / "model.safetensors", tmp_path / "weights.pt"):
        written = {"best_of_n": 1, "model": str(scorer / "tiny.json"), "pretrained": str(weights)}
        assert run([written], table)[0]["source"].to_pylist() == ["raw", "a"] * 4


def test_the_same_weights_elsewhere_are_the_same_scorer_and_others_are_not(tmp_path, scorer):
    def identity(folder):
        step = TypeAdapter(FilterStep).validate_python({"keep_top": 0.5, "model": str(folder)})
        return filters_identity([step])

    copy = tmp_path / "copy"
    copy.mkdir()
    for file in scorer.glob("*"):
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "notes.txt").write_text("of another day")
    assert identity(copy) == identity(scorer)
    (copy / "open_clip_config.json").write_text("{}")
    assert identity(copy) != identity(scorer)


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-B-33", "openai", 'no CLIP architecture "ViT-B-33"'),
        ("ViT-B-32", "opanai", 'open_clip has no weights "opanai" for ViT-B-32; known: openai'),
        ("picture-book", "gone.pt", r"gone\.pt: there is no such file of weights"),
        ("picture-book", "code.pt", r"code\.pt: these are not weights of picture-book"),
        ("./nothing", None, "this is not a checkpoint"),
    ],
)
def test_a_scorer_that_cannot_be_had_is_told_in_a_sentence(tmp_path, run, model, pretrained, message):
    torch.save({"state_dict": print}, tmp_path / "code.pt")  # loading it would run what it names
    written = {"keep_top": 0.5, "model": model.replace("./", f"{tmp_path}/")}
    if pretrained:
        written["pretrained"] = str(tmp_path / pretrained) if pretrained.endswith(".pt") else pretrained
    with pytest.raises((TrainingError, StoreError), match=message):
        run([written], bucket(write_pictures(tmp_path, 2), right_and_wrong))


@pytest.mark.parametrize(
    "written",
    [{"keep_top": 0.5, "model": "ViT-B-32"}, {"best_of_n": 1, "model": "/a/folder", "pretrained": "openai"}],
)
def test_a_scorer_names_its_weights_once(written):
    with pytest.raises(ValidationError, match="name the weights that score"):
        TypeAdapter(FilterStep).validate_python(written)


def test_paths_are_relative_to_the_yaml_and_names_stay_names(tmp_path):
    def step(**settings):
        return TypeAdapter(FilterStep).validate_python({"keep_top": 0.5, **settings}, context={"base": tmp_path})

    assert step(model="./scorer").model == str(tmp_path / "scorer")
    named = step(model="ViT-B-32", pretrained="w.pt")
    assert (named.model, named.pretrained) == ("ViT-B-32", str(tmp_path / "w.pt"))
