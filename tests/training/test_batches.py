from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image
from training_files import TrainingFiles

from caploom.errors import TrainingError
from caploom.images import ImageFault
from caploom.records import image_identity
from caploom.training.batches import BatchStream, epoch_order
from caploom.training.images import ImageDecoder
from caploom.training.rows import TrainingRows


def count_letters(texts: list[str]) -> torch.Tensor:
    """A tokenizer that keeps the text readable: its code points, cut or padded to twelve."""
    return torch.tensor([[ord(letter) for letter in text.ljust(12)[:12]] for text in texts])


def identity(path: Path) -> str:
    return image_identity(path.read_bytes())


def readable(tokens: torch.Tensor) -> list[str]:
    return ["".join(map(chr, row)).strip() for row in tokens.tolist()]


@pytest.fixture
def files(tmp_path: Path) -> TrainingFiles:
    return TrainingFiles(tmp_path)


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., BatchStream]:
    def make(files: list[Path], *, batch_size: int, seed: int = 0, workers: int = 0, cache: int = 2**20) -> BatchStream:
        decoder = ImageDecoder(PreprocessCfg(size=8))
        return BatchStream(
            TrainingRows(files),
            decoder,
            count_letters,
            batch_size=batch_size,
            seed=seed,
            workers=workers,
            cache_bytes=cache,
        )

    return make


def test_an_epoch_shows_each_row_once_and_the_next_epoch_another_order(files: TrainingFiles, stream: Callable) -> None:
    batches = islice(stream([files.numbered_shard(12)], batch_size=4), 6)
    shown = [readable(batch.tokens) for batch in batches]
    first, second = ([row for batch in part for row in batch] for part in (shown[:3], shown[3:]))
    assert sorted(map(int, first)) == sorted(map(int, second)) == list(range(12))
    assert first != second


def test_no_batch_spans_two_epochs(files: TrainingFiles, stream: Callable) -> None:
    for batch in islice(stream([files.numbered_shard(10)], batch_size=8), 5):
        assert len(set(readable(batch.tokens))) == 8


def test_order_depends_on_seed_and_epoch_alone() -> None:
    rows = np.arange(20)
    assert epoch_order(rows, seed=3, epoch=1).tolist() == epoch_order(rows, seed=3, epoch=1).tolist()
    assert epoch_order(rows, seed=3, epoch=1).tolist() != epoch_order(rows, seed=4, epoch=1).tolist()
    # Written down, so that a change of library that would change every trained model is noticed.
    assert epoch_order(np.arange(8), seed=0, epoch=0).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]


def test_captions_are_drawn_by_weight_and_a_zero_weight_never(files: TrainingFiles) -> None:
    (path, _), *_ = files.images(1)
    row = files.row(path, ["never", "often", "seldom", "never"], [0.0, 0.75, 0.25, 0.0])
    rows = TrainingRows([files.shard("shard", [row])])
    drawn = Counter(rows.draw_texts(0, seed=0, epoch=epoch)[0] for epoch in range(2000))
    assert set(drawn) == {"often", "seldom"}
    assert drawn["often"] / 2000 == pytest.approx(0.75, abs=0.04)


def test_draws_of_a_row_do_not_depend_on_other_rows_or_order(files: TrainingFiles) -> None:
    images = files.images(3)
    shard = files.shard("shard", [files.row(path, list("abcde")) for path, _ in images])
    rows = TrainingRows([shard])
    there = [rows.draw_texts(row, seed=1, epoch=0)[0] for row in (0, 1, 2)]
    back = [rows.draw_texts(row, seed=1, epoch=0)[0] for row in (2, 1, 0)]
    assert there == back[::-1]
    assert len({tuple(rows.draw_texts(row, seed=seed, epoch=0)[0] for row in range(3)) for seed in range(20)}) > 10


def test_missing_damaged_and_empty_images_are_counted_and_leave_their_places_empty(
    tmp_path: Path, files: TrainingFiles, stream: Callable
) -> None:
    shard = files.numbered_shard(12, missing=(3, 7))
    (tmp_path / "images" / "005.png").write_bytes(b"")
    (tmp_path / "images" / "006.png").write_bytes(b"not a picture")
    data = stream([shard], batch_size=6)
    shown = [readable(batch.tokens) for batch in islice(data, 4)]
    assert {*shown[0], *shown[1]} == {*shown[2], *shown[3]} == {"0", "1", "2", "4", "8", "9", "10", "11"}
    assert data.failures == {"missing_image": 2, "empty_image": 1, "image_changed": 1}


def test_images_belong_to_their_captions_when_some_are_missing(files: TrainingFiles, stream: Callable) -> None:
    images = files.images(16)
    shard = files.shard("shard", [files.row(path, [path.stem]) for path, _ in images])
    decoder = ImageDecoder(PreprocessCfg(size=8))
    expected = {path.stem: decoder.decode(str(path), identity(path)) for path, _ in images}
    for index in (0, 5, 9):
        images[index][0].unlink()
    for batch in islice(stream([shard], batch_size=6), 6):
        for pixels, name in zip(batch.images.numpy(), readable(batch.tokens), strict=True):
            assert np.array_equal(pixels, expected[name])


def test_row_without_captions_is_counted(files: TrainingFiles, stream: Callable) -> None:
    images = files.images(5)
    rows = [files.row(path, ["x"] if index else []) for index, (path, _) in enumerate(images)]
    data = stream([files.shard("shard", rows)], batch_size=5)
    assert len(next(iter(data)).images) == 4
    assert data.failures == {"no_caption": 1}


@pytest.mark.parametrize("cache", [0, 3 * 8 * 8 * 4, 2**20])
def test_worker_processes_and_cache_sizes_change_nothing(files: TrainingFiles, stream: Callable, cache: int) -> None:
    shard = files.numbered_shard(14, missing=(2,))
    plain = list(islice(stream([shard], batch_size=4, cache=0), 8))
    workers = 2 if cache else 0
    others = list(islice(stream([shard], batch_size=4, workers=workers, cache=cache), 8))
    for one, other in zip(plain, others, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.tokens, other.tokens)


def test_rows_of_several_shards_are_shuffled_together(files: TrainingFiles, stream: Callable) -> None:
    images = files.images(20)
    shards = [
        files.shard(f"{name}", [files.row(path, [name]) for path, _ in part])
        for name, part in (("first", images[:10]), ("second", images[10:]))
    ]
    batch = next(iter(stream(shards, batch_size=10)))
    assert set(readable(batch.tokens)) == {"first", "second"}


def test_too_few_rows_for_a_batch_is_said_with_both_numbers(files: TrainingFiles, stream: Callable) -> None:
    with pytest.raises(TrainingError, match="A batch of 16 needs as many rows, and the training set has 12"):
        stream([files.numbered_shard(12)], batch_size=16)


def test_training_set_without_a_usable_row_is_refused(files: TrainingFiles) -> None:
    with pytest.raises(TrainingError, match="has no rows"):
        TrainingRows([])
    with pytest.raises(TrainingError, match="has no rows"):
        TrainingRows([files.shard("empty", [])])
    (path, _), *_ = files.images(1)
    with pytest.raises(TrainingError, match="None of the training set's 1 rows has a caption"):
        TrainingRows([files.shard("silent", [files.row(path, [])])])


@pytest.mark.parametrize(
    ("captions", "weights", "message"),
    [
        (["a", "b"], [1.0], "not as many weights"),
        (["a"], [0.0], "add up to nothing"),
        (["a", "b"], [2.0, -1.0], "negative"),
    ],
)
def test_weights_that_cannot_be_drawn_by_are_refused(
    files: TrainingFiles, captions: list[str], weights: list[float], message: str
) -> None:
    (path, _), *_ = files.images(1)
    shard = files.shard("wrong", [files.row(path, captions, weights)])
    with pytest.raises(TrainingError, match=rf"wrong\.parquet: .*{message}"):
        TrainingRows([shard])


def test_file_that_is_no_shard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.parquet").write_text("not a table")
    with pytest.raises(TrainingError, match=r"notes\.parquet: this is no shard"):
        TrainingRows([tmp_path / "notes.parquet"])


@pytest.mark.parametrize("size", [(40, 40), (100, 37), (20, 64)])
def test_decoded_image_is_what_open_clip_evaluates(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    decoder = ImageDecoder(PreprocessCfg(size=32))
    ours = decoder.normalize(
        torch.from_numpy(decoder.decode(str(tmp_path / "image.png"), identity(tmp_path / "image.png")))[None]
    )[0]
    theirs = open_clip.image_transform(32, is_train=False)(Image.open(tmp_path / "image.png"))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0)).convert(mode)
    image.save(tmp_path / "clear.png", **({"transparency": image.getpixel((0, 0))} if mode == "P" else {}))
    clear = tmp_path / "clear.png"
    assert (ImageDecoder(PreprocessCfg(size=8)).decode(str(clear), identity(clear)) == 255).all()


def test_folder_in_place_of_an_image_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ImageFault) as raised:
        ImageDecoder(PreprocessCfg(size=8)).decode(str(tmp_path), "any")
    assert raised.value.reason == "unreadable_image"
