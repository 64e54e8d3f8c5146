import io
import re
import time
from collections import Counter

import pyarrow as pa
import pytest
from PIL import Image

from caploom.questions.caption_statistics import (
    BOILERPLATE_OPENINGS,
    REFUSAL_OPENINGS,
    caption_statistics,
    statistics_markdown,
    statistics_text,
)
from caploom.report.plots import caption_length_histogram
from caploom.storage.records import CAPTIONS
from caploom.storage.tables import table_of


def captions(texts, tokens=None, ends=None):
    """CAPTIONS of the images "0", "1", ... (or of those named in a mapping)."""
    named = texts if isinstance(texts, dict) else {str(number): text for number, text in enumerate(texts)}
    same = {"captioner": "c", "fingerprint": "f", "seconds": 0.0, "attempt": 1}
    counts, reasons = tokens or [None] * len(named), ends or ["stop"] * len(named)
    rows = zip(named.items(), counts, reasons, strict=True)
    return table_of(
        ({**same, "image_id": i, "text": text, "tokens": n, "finish_reason": end} for (i, text), n, end in rows),
        CAPTIONS,
    )


def raw(*pairs):
    return pa.table({"image_id": [image for image, _ in pairs], "raw_caption": [text for _, text in pairs]})


NO_RAW = pa.table({"image_id": pa.array([], pa.string()), "raw_caption": pa.array([], pa.string())})


def test_lengths_are_counted_in_words_and_tokens_where_somebody_counted_them():
    table = captions(["a b", "a  b c\nd", "one", "a b c d e"], tokens=[3, None, 5, None])
    found = caption_statistics(table, NO_RAW, {})
    assert (found.captions, found.mean_words, found.median_words, found.mean_tokens) == (4, 3.0, 3.0, 4.0)
    assert found.p95_words == pytest.approx(4.85)  # 0.95 * 3 = 2.85 places into 1, 2, 4, 5


def test_shares_of_how_texts_ended_and_of_empty_ones():
    table = captions(["a", "b", "c", "d"], ends=["length", "shear", "shear", "stop"])
    found = caption_statistics(table, NO_RAW, {}, empty=1)
    assert (found.share_at_token_cap, found.share_stopped_by_shear, found.share_empty) == (0.25, 0.5, 0.2)


@pytest.mark.parametrize("opening", REFUSAL_OPENINGS)
def test_every_refusal_is_counted_however_it_is_written(opening):
    texts = [f"{opening} no more.", f' "{opening.upper()}, no.', opening.replace("'", "’"), f"He said: {opening}"]
    assert caption_statistics(captions(texts), NO_RAW, {}).share_refusal == 0.75


@pytest.mark.parametrize("opening", BOILERPLATE_OPENINGS)
def test_every_boilerplate_opening_is_counted(opening):
    texts = [f"{opening} a dog.", f"{opening.capitalize()}: a dog", f"A dog in {opening}", "A dog."]
    assert caption_statistics(captions(texts), NO_RAW, {}).share_boilerplate == 0.5


def test_the_boilerplate_of_the_papers_captioners_is_known():
    texts = ["The image shows a cat.", "In this picture, a cat.", "This is a photo of a cat.", "An image of a cat."]
    assert caption_statistics(captions(texts), NO_RAW, {}).share_boilerplate == 1.0


def test_longer_words_that_only_begin_alike_are_neither():
    found = caption_statistics(captions(["As an airplane lands", "In the imagery", "Sorrying"]), NO_RAW, {})
    assert (found.share_refusal, found.share_boilerplate) == (0.0, 0.0)


def test_the_commonest_openings_are_three_words_without_case_and_punctuation():
    texts = ["A red ball, old.", "a red ball is", "A red, ball", "A dog runs", "A cat runs off", "Hi!", "...", ""]
    found = caption_statistics(captions(texts), NO_RAW, {})
    assert found.commonest_openings == (("a red ball", 3), ("a cat runs", 1), ("a dog runs", 1), ("hi", 1))


def test_no_more_than_ten_openings_are_kept():
    found = caption_statistics(captions([f"word {chr(97 + n)}" for n in range(12)]), NO_RAW, {})
    assert [opening for opening, _ in found.commonest_openings] == [f"word {each}" for each in "abcdefghij"]


def test_words_are_shared_with_the_best_raw_caption_of_the_same_image():
    said = captions({"x": "A red ball.", "y": "two dogs", "unpaired": "a"})
    # x: {a, red, ball} and {red, ball, toy} share 2 of 4; the other raw caption shares 1 of 3. y: 1 of 3.
    found = caption_statistics(said, raw(("y", "Two cats"), ("x", "a"), ("x", "Toy: red BALL"), ("z", "a")), {})
    assert found.words_shared_with_raw == pytest.approx((2 / 4 + 1 / 3) / 2)


def test_words_are_shared_with_other_captioners_over_images_of_both():
    said = captions({"x": "a red ball", "y": "two dogs"})
    others = {
        "same": captions({"y": "dogs, TWO dogs", "x": "A ball; red."}),
        "other": captions({"x": "a blue ball", "z": "a"}),
        "elsewhere": captions({"z": "a red ball"}),
        "wordless": captions({"x": "..."}),
    }
    found = caption_statistics(said, NO_RAW, others)
    assert found.words_shared_with == {"same": 1.0, "other": 0.5, "elsewhere": None, "wordless": 0.0}


def test_without_captions_nothing_is_claimed():
    found = caption_statistics(captions([]), raw(("x", "a")), {"other": captions({"x": "a"})})
    assert (found.captions, found.mean_words, found.p95_words, found.mean_tokens) == (0, None, None, None)
    assert (found.share_refusal, found.share_empty, found.words_shared_with_raw) == (None, None, None)
    assert caption_statistics(captions([]), NO_RAW, {}, empty=3).share_empty == 1.0
    assert "| refusals | - |" in statistics_markdown(found)


def test_the_table_shows_every_figure_and_runs_no_markup():
    table = captions(["<b>bold</b> [x](y)", "a | b c"], tokens=[4, 5], ends=["length", "stop"])
    found = caption_statistics(table, raw(("0", "bold")), {"o|ther": captions(["bold", "x"])})
    lines = statistics_markdown(found).splitlines()
    assert "| captions | 2 |" in lines
    assert "| words: mean, median, 95th percentile | 3.0, 3.0, 3.9 |" in lines
    assert "| tokens: mean | 4.5 |" in lines
    assert "| at the token cap | 50.0 % |" in lines
    assert "| opening 2 | b bold b (1) |" in lines
    assert any(line.startswith("| words shared with o\\|ther | ") for line in lines)
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines)


def test_a_terminal_gets_no_markdown_and_every_value_in_one_column():
    table = captions(["<b>bold</b> *x*", "\x1b[31mred | 红色的 🐈 cat"], tokens=[4, 5], ends=["length", "stop"])
    found = caption_statistics(table, raw(("0", "bold")), {"o_t.h-er__": captions(["bold", "x"])})
    text = statistics_text(found)
    assert "\\" not in text
    assert "&lt;" not in text
    assert "\x1b" not in text
    assert "words shared with o_t.h-er__ " in text
    assert "opening 2  " in text
    assert {len(re.match(r".*?\S {2,}", line).group()) for line in text.splitlines()} == {
        len("words: mean, median, 95th percentile  ")
    }


def test_ten_thousand_captions_beside_five_captioners_take_a_moment():
    words = [f"word{number}" for number in range(997)]

    def said(seed):
        texts = (" ".join(words[(image * seed + place * 31) % 997] for place in range(20)) for image in range(10_000))
        return captions({str(image): text for image, text in enumerate(texts)})

    mine, others = said(7), {f"other {seed}": said(seed) for seed in (3, 5, 11, 13, 17)}
    pairs = pa.table({"image_id": mine.column("image_id"), "raw_caption": mine.column("text")})
    taken = []
    while len(taken) < 3 and min(taken, default=9.0) > 2:  # at best: what others do on this machine is no fault of ours
        started = time.process_time()
        found = caption_statistics(mine, pairs, others)
        taken.append(time.process_time() - started)
        assert found.words_shared_with_raw == 1.0
    assert min(taken) < 2


@pytest.mark.parametrize(("words", "raw_words"), [([3, 5, 5, 40], [2, 2, 7]), ([], []), ([], [4])])
def test_the_histogram_is_a_picture(words, raw_words):
    with Image.open(
        io.BytesIO(caption_length_histogram(Counter(words), Counter(raw_words), "llava, shard-00000"))
    ) as image:
        image.load()
        assert image.width > 600
        assert image.height > 300
        assert len(image.convert("RGB").getcolors(1_000_000)) > 2
