"""Picture books: whole or not there, the same bytes every time, as wrong as stated."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from caploom.demo import picture_book
from caploom.demo.picture_book import PictureBookError, write_picture_book
from caploom.demo.truth import named_things, read_truth, score


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_training_book_has_one_caption_an_image_and_its_truth(tmp_path):
    book = write_picture_book(tmp_path / "book", split="training", scenes=12, seed=0)
    rows = json.loads(book.captions.read_text())
    assert [row["image"] for row in rows] == [f"{index:06d}.png" for index in range(12)]
    truth = pq.read_table(book.truth).to_pylist()
    assert [row["image"] for row in truth] == [row["image"] for row in rows]
    for row in truth:
        assert row["image_id"] == hashlib.sha256((book.images / row["image"]).read_bytes()).hexdigest()


def test_an_evaluation_book_has_five_true_captions_an_image(tmp_path):
    book = write_picture_book(tmp_path / "book", split="evaluation", scenes=8, seed=0)
    rows = json.loads(book.captions.read_text())
    assert len(rows) == 40
    truth = read_truth(book.truth, key="image")
    for ordinal in range(5):
        scores = score({row["image"]: row["caption"] for row in rows[ordinal::5]}, truth)
        assert (scores.named_share, scores.right_share) == (1.0, 1.0)


def test_the_same_parameters_give_the_same_bytes(tmp_path):
    first = write_picture_book(tmp_path / "a", split="training", scenes=20, seed=5)
    second = write_picture_book(tmp_path / "b", split="training", scenes=20, seed=5)
    other = write_picture_book(tmp_path / "c", split="training", scenes=20, seed=6)
    assert contents(first.folder) == contents(second.folder)
    assert contents(first.folder) != contents(other.folder)


def test_a_complete_book_is_left_alone(tmp_path, monkeypatch):
    book = write_picture_book(tmp_path / "book", split="training", scenes=5, seed=0)
    monkeypatch.setattr(picture_book, "render", lambda scene: pytest.fail("drawn again"))
    assert write_picture_book(tmp_path / "book", split="training", scenes=5, seed=0) == book


def test_other_parameters_or_a_missing_image_write_the_book_again(tmp_path):
    book = write_picture_book(tmp_path / "book", split="training", scenes=5, seed=0)
    whole = contents(book.folder)
    (book.images / "000003.png").unlink()
    write_picture_book(tmp_path / "book", split="training", scenes=5, seed=0)
    assert contents(book.folder) == whole
    write_picture_book(tmp_path / "book", split="training", scenes=6, seed=0)
    assert len(list(book.images.iterdir())) == 6


def test_an_interrupted_call_leaves_no_book_and_the_next_one_writes_it(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_picture_book(tmp_path / "book", split="training", scenes=5, seed=0, progress=interrupt)
    assert not (tmp_path / "book").exists()
    book = write_picture_book(tmp_path / "book", split="training", scenes=5, seed=0)
    assert len(json.loads(book.captions.read_text())) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["book"]


def test_the_stated_share_of_captions_belongs_to_another_scene(tmp_path):
    honest = write_picture_book(tmp_path / "honest", split="training", scenes=200, seed=0, mismatched=0.0)
    mixed = write_picture_book(tmp_path / "mixed", split="training", scenes=200, seed=0, mismatched=0.25)
    flags = [row["caption_mismatched"] for row in pq.read_table(mixed.truth).to_pylist()]
    assert sum(flags) == 50
    pairs = list(zip(json.loads(honest.captions.read_text()), json.loads(mixed.captions.read_text()), strict=True))
    for (right, mine), mismatched in zip(pairs, flags, strict=True):
        if not mismatched:
            assert right == mine
    truth = read_truth(mixed.truth, key="image")
    naming = [mine for (_, mine), flag in zip(pairs, flags, strict=True) if flag and named_things(mine["caption"])]
    wrong = [row for row in naming if not named_things(row["caption"]) <= set(truth[row["image"]])]
    assert len(wrong) > 0.7 * len(naming)


def test_progress_counts_to_the_total(tmp_path):
    seen = []
    write_picture_book(
        tmp_path / "book", split="evaluation", scenes=3, seed=0, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(PictureBookError, match="not a picture book"):
        write_picture_book(tmp_path / "mine", split="training", scenes=3, seed=0)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(("scenes", "mismatched"), [(0, 0.2), (3, 1.2), (3, -0.1)])
def test_impossible_parameters_are_refused(tmp_path, scenes, mismatched):
    with pytest.raises(PictureBookError):
        write_picture_book(tmp_path / "book", split="training", scenes=scenes, seed=0, mismatched=mismatched)
