"""What a step trains on, mix by mix."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from open_clip.loss import ClipLoss
from open_clip.transform import PreprocessCfg
from training_files import TrainingFiles, train_files, write_tiny_architecture

from caploom.errors import TrainingError
from caploom.training.batches import Batch, BatchStream
from caploom.training.drawing import sentences
from caploom.training.images import ImageDecoder
from caploom.training.losses import multi_positive_loss
from caploom.training.rows import TrainingRows, Window
from caploom.training.settings import ClipTrainerSettings
from caploom.training_set.mixes import training_rows
from caploom.training_set.settings import MixSettings

torch.set_num_threads(1)

SOURCES = ["raw", "a", "b", "c"]
EPOCHS = 1500
MIXES = [
    "uniform",
    "concatenate",
    {"raw_probability": 0.8},
    {"weights": {"raw": 1, "a": 2, "b": 0, "c": 1}},
    "multi_positive",
    {"multi_positive": 3, "sub_caption": True},
    {"sub_caption": True},
    {"source_prefix": True},
    {"multi_positive": 2, "sub_caption": True, "source_prefix": True},
]


def code_points(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[ord(letter) for letter in text.ljust(30)[:30]] for text in texts])


def readable(tokens: torch.Tensor) -> list[str]:
    return ["".join(map(chr, row)).strip() for row in tokens.tolist()]


@pytest.fixture
def files(tmp_path: Path) -> TrainingFiles:
    return TrainingFiles(tmp_path)


def mixed_shard(files: TrainingFiles, mix: Any, images: int = 16, sources: list[str] = SOURCES) -> Path:
    """A shard as the merge writes it: each image's captions are `<image> by <source>. Again.`"""
    captions: dict[str, list[Any]] = {name: [] for name in ("image_id", "source", "caption", "image", "path")}
    for number, (path, _) in enumerate(files.images(images)):
        identity = files.row(path, ["x"])["image_id"]
        for source in sources:
            row = (identity, source, f"{number} by {source}. Again.", path.name, str(path))
            for column, value in zip(captions.values(), row, strict=True):
                column.append(value)
    file = files.folder / "mixed.parquet"
    pq.write_table(training_rows(pa.table(captions), MixSettings.model_validate(mix)), file)
    return file


def frequencies(rows: Window) -> dict[str, float]:
    drawn = Counter(
        text.removesuffix(" Again.").split("by ")[1].removesuffix(".")
        for epoch in range(EPOCHS)
        for text in rows.draw_texts(0, seed=0, epoch=epoch)
    )
    return {source: drawn[source] / EPOCHS for source in SOURCES}


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        ("uniform", [0.25, 0.25, 0.25, 0.25]),
        ({"raw_probability": 0.7}, [0.7, 0.1, 0.1, 0.1]),
        ({"weights": {"raw": 1, "a": 2, "b": 0, "c": 1}}, [0.25, 0.5, 0, 0.25]),
        ({"multi_positive": 1}, [0.25, 0.25, 0.25, 0.25]),
        ({"multi_positive": 2}, [1, 1 / 3, 1 / 3, 1 / 3]),
        ({"multi_positive": 3}, [1, 2 / 3, 2 / 3, 2 / 3]),
        ("multi_positive", [1, 1, 1, 1]),
    ],
)
def test_captions_are_drawn_as_often_as_the_mix_says(files: TrainingFiles, mix: Any, expected: list[float]) -> None:
    rows = TrainingRows([mixed_shard(files, mix, images=1)]).read([0])
    assert list(frequencies(rows).values()) == pytest.approx(expected, abs=0.04)


def test_several_positives_are_different_captions_and_the_raw_one_is_first(files: TrainingFiles) -> None:
    rows = TrainingRows([mixed_shard(files, {"multi_positive": 3}, images=1)]).read([0])
    drawn = [rows.draw_texts(0, seed=0, epoch=epoch) for epoch in range(50)]
    assert all(texts[0] == "0 by raw. Again." and len(set(texts)) == 3 for texts in drawn)
    assert len({tuple(texts) for texts in drawn}) == 6
    without_raw = TrainingRows([mixed_shard(files, {"multi_positive": 3}, images=1, sources=["a", "b"])]).read([0])
    assert {len(without_raw.draw_texts(0, seed=0, epoch=epoch)) for epoch in range(5)} == {2}


def test_a_sub_caption_is_a_random_sentence_of_the_drawn_caption(files: TrainingFiles) -> None:
    (path, _), *_ = files.images(1)
    text = "A dog by St. Peter's. It runs! Is it 3.5 metres long?"
    rows = TrainingRows([files.shard("one", [files.row(path, [text])], {"sub_caption": True})]).read([0])
    drawn = Counter(rows.draw_texts(0, seed=0, epoch=epoch)[0] for epoch in range(EPOCHS))
    assert {sentence: count / EPOCHS for sentence, count in drawn.items()} == pytest.approx(
        {"A dog by St. Peter's.": 1 / 3, "It runs!": 1 / 3, "Is it 3.5 metres long?": 1 / 3}, abs=0.04
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", []), ("  \n", []), ("...", ["..."]), ("no stop", ["no stop"]), ("One.\nTwo. ", ["One.", "Two."])],
)
def test_sentences_of_unusual_texts(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_the_source_stands_before_the_caption_that_is_drawn(files: TrainingFiles) -> None:
    mix = {"source_prefix": True, "sub_caption": True, "multi_positive": 9}
    rows = TrainingRows([mixed_shard(files, mix, images=1, sources=["raw", "bob"])]).read([0])
    drawn = {tuple(rows.draw_texts(0, seed=0, epoch=epoch)) for epoch in range(40)}
    assert drawn == {
        (raw, bob) for raw in ("raw: 0 by raw.", "raw: Again.") for bob in ("bob: 0 by bob.", "bob: Again.")
    }


def batches(shard: Path, count: int, workers: int = 0) -> list[Batch]:
    decoder = ImageDecoder(PreprocessCfg(size=8))
    stream = BatchStream(
        TrainingRows([shard]), decoder, code_points, batch_size=4, seed=3, workers=workers, cache_bytes=0
    )
    return list(islice(stream, count))


@pytest.mark.parametrize("mix", [{"multi_positive": 3, "sub_caption": True, "source_prefix": True}, "uniform"])
def test_worker_processes_change_nothing(files: TrainingFiles, mix: Any) -> None:
    shard = mixed_shard(files, mix, images=10)
    for one, other in zip(batches(shard, 5), batches(shard, 5, workers=2), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.tokens, other.tokens)
        assert (one.owners is None) == (other.owners is None)
        assert one.owners is None or torch.equal(one.owners, other.owners)


def test_each_text_of_a_step_knows_its_image_where_images_have_different_numbers_of_texts(files: TrainingFiles) -> None:
    decoder = ImageDecoder(PreprocessCfg(size=8))
    images = files.images(8)
    rows = [
        files.row(
            path,
            [f"{number}.{caption}" for caption in range(1 + number % 3)],
            sources=["raw", "a", "b"][: 1 + number % 3],
        )
        for number, (path, _) in enumerate(images)
    ]
    shard = files.shard("uneven", rows, {"multi_positive": 2})
    pixels = {number: torch.from_numpy(decoder.decode(row["path"], row["image_id"])) for number, row in enumerate(rows)}
    for batch in batches(shard, 6):
        assert batch.owners is not None
        texts = readable(batch.tokens)
        assert (
            len(texts)
            == len(batch.owners)
            == sum(min(2, 1 + int(text.split(".")[0]) % 3) for text in texts if text.endswith(".0"))
        )
        for text, owner in zip(texts, batch.owners.tolist(), strict=True):
            assert torch.equal(batch.images[owner], pixels[int(text.split(".")[0])])


def test_one_positive_is_the_same_batches_as_uniform(files: TrainingFiles) -> None:
    plain = batches(mixed_shard(files, "uniform"), 6)
    for one, other in zip(plain, batches(mixed_shard(files, {"multi_positive": 1}), 6), strict=True):
        assert other.owners is None
        assert torch.equal(one.tokens, other.tokens)


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def test_the_loss_with_one_text_an_image_is_clips() -> None:
    images, texts, scale = features(9, 5), features(9, 5, seed=1), torch.tensor(14.3, dtype=torch.float64)
    ours, theirs = (images.clone().requires_grad_() for _ in range(2))
    loss = multi_positive_loss(ours, texts, scale, torch.arange(9))
    plain = ClipLoss()(theirs, texts, scale)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(*torch.autograd.grad(loss, ours), *torch.autograd.grad(plain, theirs))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(multi_positive_loss(images, texts[order], scale, order), plain)


def test_the_loss_with_several_texts_equals_its_definition() -> None:
    images, texts, owners = features(3, 4), features(6, 4, seed=1), torch.tensor([0, 0, 0, 1, 2, 2])
    logits = 10 * images @ texts.T
    expected = 0.0
    for image in range(3):
        own = [text for text in range(6) if owners[text] == image]
        for text in own:
            against = [logits[image, other].exp() for other in range(6) if other not in own or other == text]
            to_text = -(logits[image, text].exp() / sum(against)).log()
            to_image = -(logits[image, text].exp() / logits[:, text].exp().sum()).log()
            expected += float(to_text + to_image) / (2 * 3 * len(own))
    assert multi_positive_loss(images, texts, torch.tensor(10.0), owners).item() == pytest.approx(expected)


def test_a_caption_said_again_does_not_weigh_its_image_more() -> None:
    images, texts = features(3, 4), features(3, 4, seed=1)
    once = multi_positive_loss(images, texts, torch.tensor(10.0), torch.arange(3))
    # Only as a negative of others does the second copy count: for image to text, not for text to image.
    twice = multi_positive_loss(images, texts[[0, 0, 1, 2]], torch.tensor(10.0), torch.tensor([0, 0, 1, 2]))
    assert once < twice < once + torch.log(torch.tensor(2.0))


def test_a_single_image_has_no_negatives_and_finite_gradients() -> None:
    images = features(1, 4).requires_grad_()
    loss = multi_positive_loss(images, features(2, 4, seed=1), torch.tensor(100.0), torch.zeros(2, dtype=torch.int64))
    assert loss.item() == 0
    assert torch.isfinite(torch.autograd.grad(loss, images)[0]).all()


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_the_trainer_takes_every_mix(tmp_path: Path, files: TrainingFiles, mix: Any) -> None:
    model = str(write_tiny_architecture(tmp_path))
    settings = ClipTrainerSettings.model_validate({"model": model, "steps": 3, "batch_size": 8, "device": "cpu"})
    result = train_files([mixed_shard(files, mix)], settings, seed=0, out=tmp_path)
    assert len(result.losses) == 3
    assert all(0 < loss < 10 for _, loss in result.losses)


def test_shards_of_two_mixes_are_refused(files: TrainingFiles) -> None:
    rows = [files.row(path, ["x"]) for path, _ in files.images(2)]
    shards = [files.shard("one", rows), files.shard("two", rows, {"sub_caption": True})]
    with pytest.raises(TrainingError, match="of several mixes"):
        TrainingRows(shards)
