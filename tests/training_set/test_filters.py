import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from small_factory import settings_of

from caploom.config.factory_config import load_config
from caploom.errors import ConfigError, TrainingError
from caploom.storage.records import DROPPED
from caploom.storage.store import Store
from caploom.training_set.filter_context import FilterContext, Passes
from caploom.training_set.filter_settings import FilterStep
from caploom.training_set.filters import apply_filters, filters_identity, prepare_filters
from caploom.training_set.near_duplicates import near_duplicates_of

SCHEMA = pa.schema(
    [
        (name, pa.int8() if name == "place" else pa.string())
        for name in "image_id source place caption image path".split()
    ]
)


def steps(*written):
    return [TypeAdapter(FilterStep).validate_python(step) for step in written]


def table(*rows):
    """A bucket of (image, source, caption)."""
    return pa.Table.from_pylist(
        [
            {
                "image_id": image,
                "source": source,
                "place": int(source != "raw"),
                "caption": caption,
                "image": f"{image}.png",
                "path": f"/{image}.png",
            }
            for image, source, caption in rows
        ],
        schema=SCHEMA,
    )


@pytest.fixture
def run(tmp_path):
    """Runs filters over buckets and gives what they keep and what they drop, as (caption) and (caption, reason)."""

    def run(written, *buckets, captioners=("b", "a")):
        context = FilterContext(Store(tmp_path), "test", captioners)
        prepared = prepare_filters(steps(*written), Passes(lambda: iter(buckets)), context)
        kept, dropped = [], []
        for bucket in buckets:
            remaining, lost = apply_filters(bucket, prepared)
            assert lost.schema == DROPPED
            assert len(remaining) + len(lost) == len(bucket)
            kept += remaining["caption"].to_pylist()
            dropped += [(row["caption"], row["reason"]) for row in lost.to_pylist()]
        prepared.refuse_if_all_dropped()
        return kept, dropped

    return run


def of_texts(*texts):
    return table(*((f"i{number}", "raw", text) for number, text in enumerate(texts)))


SAYING = ["a dog", "NaN", "犬", "שלום", "7", "🐕", "&amp;", "a\nb", "x" * 1_000_000]
SILENT = ["", " ", "\n\t", "...", "?!", "—", "\x00\x07", "\u200b", "«»"]


def test_what_says_nothing_is_empty(run):
    kept, dropped = run(["no_empty"], of_texts(*SAYING, *SILENT))
    assert kept == SAYING
    assert dropped == [(text, "no_empty") for text in SILENT]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a red car", 3),
        ("a - red , car !", 3),
        ("St. Peter's church", 3),
        ("", 0),
        ("...", 0),
        ("a\u00a0b\n c\td", 4),
        ("犬が走る", 4),
        ("a 犬", 2),
        ("🐕 runs", 2),
        ("NaN", 1),
    ],
)
def test_words_are_counted(run, text, words):
    beside = "one two three four five"
    if words:
        assert run([{"min_words": words}], of_texts(text, beside))[1] == []
    assert run([{"min_words": words + 1}], of_texts(text, beside))[1] == [(text, "min_words")]


def test_captions_in_another_language_are_dropped_and_the_shortest_stay(run):
    english = ["A man rides a bicycle down the street.", "photo 3", "red car", "portrait of a young woman"]
    others = ["Ein Hund läuft über die grüne Wiese", "犬が草の上を走っています", "Un chien court dans l'herbe"]
    kept, dropped = run([{"language": "en"}], of_texts(*english, *others))
    assert kept == english
    assert dropped == [(text, "language") for text in others]
    assert run([{"language": ["en", "de"]}], of_texts(*english, *others))[0] == [*english, others[0]]


def test_an_unknown_language_lists_the_known_ones(run):
    with pytest.raises(TrainingError, match=r"does not know xx; known: ace, af, .*en, "):
        run([{"language": ["en", "xx"]}], of_texts("a"))


def test_a_caption_at_more_images_than_allowed_is_dropped_everywhere(run):
    said = [("1", "raw", "logo"), ("1", "a", "logo"), ("2", "raw", "logo"), ("3", "raw", "dog"), ("3", "a", "logo")]
    twice = [("4", "raw", "cat"), ("4", "a", "cat"), ("5", "raw", "cat")]
    kept, dropped = run([{"max_repeats": 2}], table(*said[:2]), table(*said[2:], *twice))
    assert kept == ["dog", "cat", "cat", "cat"]  # "cat" stands three times, at two images
    assert dropped == [("logo", "max_repeats")] * 4
    assert run([{"max_repeats": 3}], table(*said), table(*twice))[1] == []


def test_of_near_duplicates_the_first_in_the_order_raw_then_the_yaml_stays(run):
    rows = [("1", "a", "a red dog runs"), ("1", "b", "A red dog runs!"), ("2", "a", "a red dog runs")]
    kept, dropped = run([{"near_duplicates": 0.9}], table(("1", "raw", "dog"), *rows))
    assert kept == ["dog", "A red dog runs!", "a red dog runs"]  # b stands before a in the YAML
    assert dropped == [("a red dog runs", "near_duplicates")]
    assert len(run([{"near_duplicates": 0.9}], table(("1", "raw", "a dog, red, runs"), *rows))[0]) == 2


def test_near_means_the_jaccard_index_of_the_words(run):
    bucket = table(("1", "raw", "a b c"), ("1", "a", "a b c d"))  # 3 of 4
    assert len(run([{"near_duplicates": 0.75}], bucket)[0]) == 1
    assert len(run([{"near_duplicates": 0.76}], bucket)[0]) == 2


def naive_near_duplicates(texts, images, threshold):
    near, kept = [], []
    for text, image in zip(texts, images, strict=True):
        words = set(text.split())
        near.append(any(of == image and len(words & other) >= threshold * len(words | other) for of, other in kept))
        if not near[-1]:
            kept.append((image, words))
    return near


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.text("ab c", max_size=8), min_size=1, max_size=7), max_size=6),
    st.sampled_from([0.2, 0.5, 2 / 3, 0.9, 1.0]),
)
def test_near_duplicates_equal_a_slow_oracle(images, threshold):
    texts = [text for captions in images for text in captions]
    owner = np.repeat(np.arange(len(images)), [len(captions) for captions in images])
    near = near_duplicates_of(pa.array(texts, pa.string()), owner, threshold)
    assert near.tolist() == naive_near_duplicates(texts, owner, threshold)


def test_an_image_with_very_many_captions_is_judged_the_same():
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(list("abcdefgh"), 3)) for _ in range(210)]
    owner = np.repeat([0, 1, 2], [100, 10, 100])
    near = near_duplicates_of(pa.array(texts), owner, 0.5)
    assert near.tolist() == naive_near_duplicates(texts, owner, 0.5)
    assert 0 < near.sum() < 200


def test_filters_run_in_their_order_and_each_dropped_caption_has_one_reason(run):
    bucket = table(*((str(image), "raw", "...") for image in range(3)), ("4", "raw", "a dog runs"), ("5", "raw", "dog"))
    assert run(["no_empty", {"min_words": 2}, {"max_repeats": 1}], bucket) == (
        ["a dog runs"],
        [*[("...", "no_empty")] * 3, ("dog", "min_words")],
    )
    assert run([{"max_repeats": 1}, "no_empty"], bucket)[1] == [("...", "max_repeats")] * 3


def test_a_filter_sees_only_what_the_filters_before_it_leave(run):
    bucket = table(("1", "raw", "dog"), ("1", "a", "Dog!"), ("2", "raw", "cat"), ("2", "a", "Dog!"), ("3", "a", "Dog!"))
    assert [caption for caption, _ in run([{"max_repeats": 2}], bucket)[1]] == ["Dog!"] * 3
    assert run([{"near_duplicates": 1.0}, {"max_repeats": 2}], bucket)[1] == [("Dog!", "near_duplicates")]


def test_filters_that_drop_everything_are_refused_with_their_counts(run):
    with pytest.raises(TrainingError, match=r"recipe test drop all 3 of its captions \(no_empty 2, min_words 1\)"):
        run(["no_empty", {"min_words": 5}], of_texts("...", "?", "a dog"))


def test_an_empty_bucket_and_no_filter_are_nothing_special(run):
    every = ["no_empty", {"min_words": 1}, {"language": "en"}, {"max_repeats": 9}, {"near_duplicates": 0.9}]
    assert run(every, of_texts(), of_texts("a dog runs in the park")) == (["a dog runs in the park"], [])
    assert run([], of_texts("...")) == (["..."], [])


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("no_emty", 'there is no filter "no_emty".*did you mean "no_empty"'),
        ({"min_word": 3}, 'there is no filter "min_word"'),
        ({"no_empty": 3}, "takes no parameter"),
        ("min_words", "needs its parameter"),
        ({"min_words": 0}, "greater than 0"),
        ({"keep_top": 1.5, "model": "ViT-B-32", "pretrained": "openai"}, "less than 1"),
        ({"keep_top": 0.3, "model": "ViT-B-32"}, "name the weights"),
        ({"min_words": 3, "wrds": 2}, 'no key "wrds"'),
        ({"language": []}, "at least 1"),
        (7, "filters.0"),
    ],
)
def test_a_wrong_filter_is_refused_with_its_place(write_source, write_config, written, message):
    recipes = {"r": {"captioners": "all", "filters": [written]}}
    with pytest.raises(ConfigError, match=message) as error:
        load_config(write_config(settings_of(write_source(1), recipes=recipes)))
    assert "recipes.r.filters.0" in str(error.value)


def test_filters_read_back_from_their_own_dump_are_the_same():
    written = steps("no_empty", {"language": "en"}, {"best_of_n": 2, "model": "ViT-B-32", "pretrained": "openai"})
    assert steps(*(step.model_dump(mode="json") for step in written)) == written
    assert filters_identity(written)[2]["scorer"]["pretrained"] == "openai"
