import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from small_factory import settings_of

from caploom.config.factory_config import load_config
from caploom.errors import ConfigError
from caploom.storage.records import TRAINING_ROWS
from caploom.training_set.mixes import MIXES, training_rows
from caploom.training_set.settings import Drawing, MixSettings


def mix(value):
    return MixSettings.model_validate(value)


def captions_of(*images):
    """A captions table: each image is its list of sources, whose captions are numbered."""
    rows = []
    for number, sources in enumerate(images):
        for place, source in enumerate(sources):
            rows.append(
                {
                    "image_id": f"image-{number}",
                    "source": source,
                    "place": int(source != "raw"),
                    "caption": f"{number}.{place} by {source}",
                    "image": f"{number}.png",
                    "path": f"/images/{number}.png",
                }
            )
    schema = pa.schema([(name, pa.int8() if name == "place" else pa.string()) for name in rows[0]]) if rows else None
    return pa.Table.from_pylist(rows, schema=schema)


def weights_of(sources, value):
    """The weights of an image, beside other images whose captions must not matter."""
    rows = training_rows(captions_of(["a", "raw"], sources, ["raw"]), mix(value)).to_pylist()
    assert rows[1]["sources"] == sources
    return rows[1]["weights"]


@pytest.mark.parametrize(
    ("value", "sources", "expected"),
    [
        ("uniform", ["raw", "a", "b", "c"], [0.25] * 4),
        ("multi_positive", ["raw", "a"], [0.5, 0.5]),
        ({"raw_probability": 0.8}, ["raw", "a", "b"], [0.8, 0.1, 0.1]),
        ({"raw_probability": 0.8}, ["raw", "raw", "a"], [0.4, 0.4, 0.2]),
        ({"raw_probability": 0.8}, ["raw"], [1.0]),
        ({"raw_probability": 0.8}, ["a", "b"], [0.5, 0.5]),
        ({"raw_probability": 1}, ["raw", "a"], [1.0, 0.0]),
        ({"weights": {"raw": 2, "a": 1, "b": 1}}, ["raw", "a", "b"], [0.5, 0.25, 0.25]),
        ({"weights": {"raw": 2, "a": 1, "b": 1}}, ["raw", "b"], [2 / 3, 1 / 3]),
        ({"weights": {"raw": 2, "a": 1, "b": 1}}, ["raw", "raw", "a"], [1 / 3, 1 / 3, 1 / 3]),
        ({"weights": {"raw": 0, "a": 3}}, ["raw", "a"], [0.0, 1.0]),
        ({"weights": {"raw": 0, "a": 3}}, ["raw", "raw"], [0.5, 0.5]),
    ],
)
def test_a_mix_weighs_captions_as_it_says(value, sources, expected):
    assert weights_of(sources, value) == pytest.approx(expected)


def test_concatenate_makes_one_row_a_caption():
    rows = training_rows(captions_of(["raw", "a"], ["raw"]), mix("concatenate")).to_pylist()
    assert [(row["image"], row["captions"], row["weights"]) for row in rows] == [
        ("0.png", ["0.0 by raw"], [1.0]),
        ("0.png", ["0.1 by a"], [1.0]),
        ("1.png", ["1.0 by raw"], [1.0]),
    ]


@pytest.mark.parametrize("strategy", MIXES)
def test_every_strategy_gives_rows_of_the_schema_whose_weights_add_up_to_one(strategy):
    parameter = {"raw_probability": 0.3, "weights": {"raw": 1, "a": 0.5, "b": 0}, "multi_positive": 2}
    settings = mix({strategy: parameter[strategy]} if strategy in parameter else strategy)
    random = np.random.default_rng(0)
    images = [["raw"] * random.integers(0, 3) + ["a"] * random.integers(0, 2) + ["b"] for _ in range(50)]
    table = captions_of(*images)
    rows = training_rows(table, settings)
    assert rows.schema == TRAINING_ROWS
    assert [caption for row in rows.to_pylist() for caption in row["captions"]] == table["caption"].to_pylist()
    assert all(sum(row["weights"]) == pytest.approx(1) for row in rows.to_pylist())
    assert training_rows(table.slice(0, 0), settings).num_rows == 0


def test_captions_in_many_chunks_are_the_same_rows():
    table = captions_of(["raw", "a"], ["raw", "a", "b"], ["b"])
    chunks = pa.concat_tables([table.slice(0, 3), table.slice(3, 0), table.slice(3)])
    assert training_rows(chunks, mix("uniform")).equals(training_rows(table, mix("uniform")))


def test_what_training_does_when_it_draws_travels_with_the_rows():
    table = captions_of(["raw", "a"])
    plain = training_rows(table, mix("uniform"))
    assert Drawing.of_metadata(plain.schema.metadata) == Drawing()
    assert not plain.schema.metadata
    rows = training_rows(table, mix({"multi_positive": 4, "sub_caption": True, "source_prefix": True}))
    assert Drawing.of_metadata(rows.schema.metadata) == Drawing(texts=4, sub_caption=True, source_prefix=True)


def test_the_yaml_forms_of_a_mix():
    assert mix({"sub_caption": True}) == mix({"strategy": "uniform", "sub_caption": True})
    assert mix("multi_positive").multi_positive == mix({"strategy": "multi_positive"}).multi_positive == 5
    assert mix({"raw_probability": 0.8, "source_prefix": True}).strategy == "raw_probability"
    for settings in (mix("uniform"), mix({"weights": {"raw": 1}}), mix({"multi_positive": 3})):
        assert MixSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"weights": {"raw": 0, "a": 0}}, "add up to zero"),
        ({"weights": {}}, "add up to zero"),
        ({"weights": {"raw": -1, "a": 2}}, "the weight of raw is -1"),
        ({"weights": {"raw": float("nan")}}, "the weight of raw is nan"),
        ({"weights": {"raw": 1}, "raw_probability": 0.5}, "two strategies"),
        ({"strategy": "uniform", "raw_probability": 0.5}, "no raw_probability for the others"),
        ("raw_probability", "write mix: {raw_probability: ...}"),
        ("weights", "write mix: {weights: ...}"),
        ({"raw_probability": 1.5}, "less than or equal to 1"),
        ({"multi_positive": 0}, "greater than 0"),
        ("unifrom", "'uniform'"),
    ],
)
def test_a_mix_that_cannot_be_drawn_by_is_refused(value, message):
    with pytest.raises(ValidationError, match=message):
        mix(value)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"raw": 1, "colour": 1},
            r'recipes.r.mix.weights: the recipe has no captioner "colour".*did you mean "colours"',
        ),
        ({"raw": 1}, r"recipes.r.mix.weights: colours has no weight; write 0"),
    ],
)
def test_weights_name_every_source_of_the_recipe_and_no_other(write_source, write_config, weights, message):
    recipes = {"r": {"captioners": "all", "mix": {"weights": weights}}}
    with pytest.raises(ConfigError, match=message):
        load_config(write_config(settings_of(write_source(1), recipes=recipes)))
