"""The stage: a small real factory, whose captions are imported so that they can be any text."""

import json
from functools import partial

import pytest
from small_factory import settings_of

from caploom.captioning.backend import load_backend
from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.errors import ConfigError
from caploom.questions.shear_examples import examples_markdown, shear_markdown
from caploom.stages.captions import caption_shard
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.sheared import (
    check_sheared,
    shear_recipe,
    sheared_texts,
    tables_of,
)
from caploom.stages.stage import Ref
from caploom.storage.tables import read_table

TEXTS = [
    "The image shows a dog. It barks.",
    "A cat | with <b>bold</b> looks. And more of it.",
    "一只狗在跑。它很高兴。",
    "One sentence only",
    "A view of St. Peter's Square with many people. It is big.",
]


@pytest.fixture
def make(write_source, tmp_path):
    """A factory of five images whose captioner says TEXTS, with the given shear and recipe."""

    def make(steps, captioner=None):
        source = write_source(len(TEXTS))
        rows = json.loads((source / "captions.json").read_text())
        said = [{"image": row["image"], "caption": text} for row, text in zip(rows, TEXTS, strict=True)]
        (tmp_path / "said.json").write_text(json.dumps(said))
        imported = {"backend": "import", "captions": str(tmp_path / "said.json"), "root": str(source / "images")}
        config = settings_of(
            source,
            shard_size=3,
            captioners={"said": captioner or imported},
            shears={"cut": steps},
            recipes={"sheared": {"captioners": "all", "shear": "cut"}},
        )
        factory = Factory.from_config(parse_config(config, base=tmp_path, source="test"))
        create_new_shards(factory)
        for shard in shard_names(factory):
            ingest_shard(factory, shard)
            if captioner is None:
                load = partial(load_backend, factory.config.captioners["said"], factory.store)
                caption_shard(factory, "said", shard, load)
        return factory, factory.config.recipe("sheared")

    return make


def captions(factory, recipe):
    sheared = Graph(factory).require(Ref("sheared_captions", (recipe.name,)))
    tables = [read_table(each.file("sheared.parquet")) for each in tables_of(factory, sheared)]
    return [row for table in tables for row in table.to_pylist()]


def test_captions_are_sheared_and_traceable_into_the_ledger_s_text(make, monkeypatch):
    factory, recipe = make(["strip_boilerplate", "first_sentence", {"max_words": 7}])
    artifact = shear_recipe(factory, recipe)
    rows = captions(factory, recipe)
    assert [row["caption"] for row in rows] == [
        "a dog.",
        "A cat | with <b>bold</b> looks.",
        "一只狗在跑。",
        "One sentence only",
        "A view of St. Peter's Square with",
    ]
    assert [text[row["start"] : row["end"]] for text, row in zip(TEXTS, rows, strict=True)] == [
        row["caption"] for row in rows
    ]
    assert [row["cut"] for row in rows] == [True, True, True, False, True]
    assert [row["at_cap"] for row in rows] == [False, False, False, False, True]
    assert [row["source_words"] for row in rows] == [len(text.split()) for text in TEXTS]
    assert all(check.passed for check in check_sheared(Graph(factory), artifact))
    (summary,) = artifact.manifest.summary["captioners"]
    assert summary["share_cut"] == 0.8
    assert summary["share_at_cap"] == 0.2
    assert "| said | 5 |" in shear_markdown(artifact)
    examples = examples_markdown(factory, artifact)
    assert "a dog." in examples
    assert r"A cat \| with &lt;b&gt;bold&lt;/b&gt; looks." in examples
    assert shear_recipe(factory, recipe).reused
    kept = sheared_texts(factory, "said", factory.config.shear_steps("cut"))
    assert kept == {row["image_id"]: row["caption"] for row in rows}


def test_match_corpus_s_number_stands_in_the_plan(make):
    factory, recipe = make([{"match_corpus": "mean"}])
    artifact = shear_recipe(factory, recipe)
    words = artifact.manifest.configuration["corpus_words"]["mean"]
    assert words >= 1
    assert all(row["words"] <= words for row in captions(factory, recipe))
    assert f"Raw captions (mean): {words} words." in shear_markdown(artifact)


def test_match_raw_cuts_at_each_image_s_own_raw_caption(make):
    factory, recipe = make([{"match_raw": 2}])
    shear_recipe(factory, recipe)
    raw = {}
    for shard in shard_names(factory):
        for row in read_table(ingest_shard(factory, shard).file("pairs.parquet")).to_pylist():
            raw[row["image_id"]] = len(row["raw_caption"].split())
    for row in captions(factory, recipe):
        assert row["words"] == min(row["source_words"], max(raw[row["image_id"]], 2))


def test_a_captioner_without_a_known_tokenizer_is_refused(make):
    factory, recipe = make([{"max_tokens": 3, "tokenizer": "captioner"}])
    with pytest.raises(ConfigError, match='"said" has the backend import, whose tokenizer is not known here'):
        shear_recipe(factory, recipe)


def test_tokens_are_counted_in_the_captioner_s_own_tokenizer(make):
    from caploom.stages.captioner_tokens import captioner_tokens

    factory, recipe = make(
        [{"max_tokens": 3, "tokenizer": "captioner"}], {"model": "demo:tiny-llava", "prompt": "Describe <image>:"}
    )
    count = captioner_tokens(factory.config, "said", factory.config.shear_steps(recipe.shear))
    assert count is not None
    assert count("") == 0
    assert 0 < count("a red square") < count("a red square and a blue circle")
