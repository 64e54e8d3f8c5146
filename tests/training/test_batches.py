import os
from collections import Counter
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image
from training_files import TrainingFiles

from caploom.errors import TrainingError
from caploom.images.decode import ImageFault
from caploom.storage.records import image_identity
from caploom.training.batches import BatchStream
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
    def make(
        files: list[Path], *, seed: int = 0, workers: int = 0, cache: int = 2**20, window: int = 10_000, **options: Any
    ) -> BatchStream:
        return BatchStream(
            TrainingRows(files, window_rows=window),
            ImageDecoder(PreprocessCfg(size=8)),
            count_letters,
            seed=seed,
            workers=workers,
            cache_bytes=cache,
            **options,
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


def shards_of(files: TrainingFiles, sizes: list[int]) -> list[Path]:
    """Shards in which a row's caption is its number in all of them."""
    images = files.images(sum(sizes))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return [
        files.shard(f"shard-{number}", [files.row(images[row][0], [str(row)]) for row in range(start, end)])
        for number, (start, end) in enumerate(pairwise(starts.tolist()))
    ]


def numbers_of(rows: TrainingRows, seed: int, epoch: int) -> list[int]:
    visited = rows.epoch(seed=seed, epoch=epoch)
    found = []
    for window, positions in visited.positions(0, len(rows)):
        found += rows.read(visited.windows[window]).numbers[positions].tolist()
    return found


def test_order_depends_on_seed_and_epoch_alone(files: TrainingFiles) -> None:
    rows = TrainingRows([files.numbered_shard(20)])
    assert numbers_of(rows, 3, 1) == numbers_of(rows, 3, 1)
    assert numbers_of(rows, 3, 1) != numbers_of(rows, 4, 1)
    assert numbers_of(rows, 3, 1) != numbers_of(rows, 3, 2)
    # Written down, so that a change of library that would change every trained model is noticed.
    assert numbers_of(TrainingRows([files.numbered_shard(8)]), 0, 0) == [2, 4, 3, 6, 5, 0, 1, 7]


def test_windows_of_files_hold_each_row_once_and_change_their_order(files: TrainingFiles) -> None:
    rows = TrainingRows(shards_of(files, [5, 3, 0, 6, 4, 5]), window_rows=8)
    first, second = numbers_of(rows, 0, 0), numbers_of(rows, 0, 1)
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second
    for epoch in range(3):
        windows = rows.epoch(seed=0, epoch=epoch).windows
        assert len(windows) >= 2
        assert sorted(file for window in windows for file in window) == list(range(6))
    assert any(rows.epoch(seed=0, epoch=epoch).windows[0] != rows.epoch(seed=0, epoch=0).windows[0] for epoch in (1, 2))


def test_a_set_that_fits_a_window_is_shuffled_whole_however_it_is_cut(files: TrainingFiles) -> None:
    cut, whole = TrainingRows(shards_of(files, [7, 2, 11])), TrainingRows(shards_of(files, [20]))
    assert numbers_of(cut, 0, 0) == numbers_of(whole, 0, 0)


@pytest.mark.parametrize("window", [4, 10_000])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_taken_up_at_a_step_goes_on_as_it_would_have(
    files: TrainingFiles, stream: Callable, window: int, workers: int
) -> None:
    shards = shards_of(files, [5, 6, 4])
    whole = list(islice(stream(shards, batch_size=4, window=window), 10))
    for first in (1, 3, 7):
        rest = list(islice(stream(shards, batch_size=4, window=window, first_step=first, workers=workers), 10 - first))
        for expected, found in zip(whole[first:], rest, strict=True):
            assert torch.equal(expected.images, found.images)
            assert torch.equal(expected.tokens, found.tokens)


def test_processes_share_each_step(files: TrainingFiles, stream: Callable) -> None:
    shards = shards_of(files, [9, 8])
    whole = list(islice(stream(shards, batch_size=6, window=5), 6))
    parts = [list(islice(stream(shards, batch_size=6, window=5, rank=r, processes=3), 6)) for r in range(3)]
    for step, batch in enumerate(whole):
        assert torch.equal(batch.images, torch.cat([part[step].images for part in parts]))
        assert torch.equal(batch.tokens, torch.cat([part[step].tokens for part in parts]))


def test_memory_is_that_of_a_window_and_not_of_the_set(files: TrainingFiles, tmp_path: Path) -> None:
    row = files.row(files.images(1)[0][0], ["a caption of some length " * 4] * 5)
    shard = files.shard("many", [row] * 5_000)
    size = TrainingRows([shard]).read([0]).table.nbytes
    copies = [tmp_path / f"copy-{number}.parquet" for number in range(60)]
    for copy in copies:
        os.link(shard, copy)
    rows = TrainingRows(copies, window_rows=10_000)
    before = pa.total_allocated_bytes()
    peak = 0
    for step in range(0, 300_000, 4_000):
        epoch = rows.epoch(seed=0, epoch=0)
        for number, positions in epoch.positions(step, step + 100):
            window = rows.read(epoch.windows[number])
            assert window.draw_texts(int(positions[0]), seed=0, epoch=0)
            peak = max(peak, pa.total_allocated_bytes() - before)
            del window
    assert len(rows) == 300_000
    assert peak < 6 * size  # two files and what reading them takes; the set has sixty


def test_captions_are_drawn_by_weight_and_a_zero_weight_never(files: TrainingFiles) -> None:
    (path, _), *_ = files.images(1)
    row = files.row(path, ["never", "often", "seldom", "never"], [0.0, 0.75, 0.25, 0.0])
    rows = TrainingRows([files.shard("shard", [row])]).read([0])
    drawn = Counter(rows.draw_texts(0, seed=0, epoch=epoch)[0] for epoch in range(2000))
    assert set(drawn) == {"often", "seldom"}
    assert drawn["often"] / 2000 == pytest.approx(0.75, abs=0.04)


def test_draws_of_a_row_do_not_depend_on_other_rows_or_order(files: TrainingFiles) -> None:
    images = files.images(3)
    shard = files.shard("shard", [files.row(path, list("abcde")) for path, _ in images])
    rows = TrainingRows([shard]).read([0])
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


def test_a_part_of_which_nothing_can_be_used_ends_the_stream(files: TrainingFiles, stream: Callable) -> None:
    data = stream([files.numbered_shard(4, missing=(0, 1, 2, 3))], batch_size=4)
    sentence = r"Of the first 4 rows .* 4 cannot be used \(4 missing_image\), as found at step 1: .*no such file"
    with pytest.raises(TrainingError, match=sentence):
        next(iter(data))


def test_too_large_a_share_of_unusable_rows_ends_the_stream(files: TrainingFiles, stream: Callable) -> None:
    shard = files.numbered_shard(12, missing=(1, 2))
    assert len(list(islice(stream([shard], batch_size=4, max_failed_share=0.2), 9))) == 9
    with pytest.raises(TrainingError, match=r"Of the first 12 rows .* 2 cannot be used \(2 missing_image\)"):
        list(islice(stream([shard], batch_size=4, max_failed_share=0.1), 9))


@pytest.mark.parametrize(("batch_size", "processes"), [(8, 1), (8, 2), (24, 1)])
def test_the_share_is_of_all_rows_met_in_however_many_epochs(
    files: TrainingFiles, stream: Callable, batch_size: int, processes: int
) -> None:
    shard = files.numbered_shard(40, missing=(1, 7, 20))  # 7.5 %, of which an epoch shows a process a part
    for rank in range(processes):
        data = stream([shard], batch_size=batch_size, processes=processes, rank=rank, max_failed_share=0.1)
        assert len(list(islice(data, 60))) == 60
        assert data.failures == {"missing_image": 3}
        assert dict(data.failed_rows) == dict.fromkeys((1, 7, 20), "missing_image")


def test_captions_that_fill_the_context_are_counted(files: TrainingFiles) -> None:
    images = files.images(4)
    rows = [files.row(path, ["long " * 40 if index == 2 else "short"]) for index, (path, _) in enumerate(images)]
    tokenize = open_clip.SimpleTokenizer(context_length=16)
    options = {"batch_size": 4, "seed": 0, "workers": 0, "cache_bytes": 0}
    data = BatchStream(
        TrainingRows([files.shard("long", rows)]), ImageDecoder(PreprocessCfg(size=8)), tokenize, **options
    )
    next(iter(data))
    assert data.truncated_share == 0.25


def test_training_set_without_a_usable_row_is_refused(files: TrainingFiles, stream: Callable) -> None:
    with pytest.raises(TrainingError, match="has no rows"):
        TrainingRows([])
    with pytest.raises(TrainingError, match="has no rows"):
        TrainingRows([files.shard("empty", [])])
    (path, _), *_ = files.images(1)
    with pytest.raises(TrainingError, match=r"1 cannot be used \(1 no_caption\).*its row has no caption"):
        next(iter(stream([files.shard("silent", [files.row(path, [])])], batch_size=1)))


@pytest.mark.parametrize(
    ("captions", "weights", "message"),
    [
        (["a", "b"], [1.0], "different numbers of weights"),
        (["a"], [0.0], "add up to zero"),
        (["a", "b"], [2.0, -1.0], "negative"),
    ],
)
def test_weights_that_cannot_be_drawn_by_are_refused(
    files: TrainingFiles, captions: list[str], weights: list[float], message: str
) -> None:
    (path, _), *_ = files.images(1)
    shard = files.shard("wrong", [files.row(path, captions, weights)])
    with pytest.raises(TrainingError, match=rf"wrong\.parquet: .*{message}"):
        TrainingRows([shard]).read([0])


def test_file_that_is_no_shard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.parquet").write_text("not a table")
    with pytest.raises(TrainingError, match=r"notes\.parquet: this is not a shard"):
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


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1600, 1200), (64, 40), (30, 20)])
def test_draft_of_a_photograph_is_near_the_exact_image(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    random = np.random.default_rng(2)
    coarse = Image.fromarray(random.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, np.float32) + random.normal(0, 4, (size[1], size[0], 3))
    path = tmp_path / "photograph.jpg"
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    preprocessing = PreprocessCfg(size=64, resize_mode=mode)
    exact, draft = (ImageDecoder(preprocessing, draft=d).decode(str(path), identity(path)) for d in (False, True))
    assert draft.shape == exact.shape == (3, 64, 64)
    assert draft.flags.c_contiguous
    assert np.abs(draft.astype(int) - exact).mean() < 2


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
