import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from small_factory import settings_of

from caploom.cli import main
from caploom.config.factory import Factory
from caploom.errors import EvaluationError
from caploom.evaluation.compare import paired_comparison
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.retrieval_metrics import measure_recipe
from caploom.stages.shards import create_new_shards
from caploom.stages.sheared import shear_recipe
from caploom.stages.stage import Ref
from caploom.stages.training_set import merge_training_set
from caploom.storage.records import RANKS
from caploom.training.clip_model import create_clip_model, save_checkpoint


def write_ranks(path, ranks, *, scoring="cosine", fold=None, order=None, names="image"):
    rows = [
        {"direction": direction, "query": f"{names}{number}{suffix}", "rank": rank, "scoring": scoring, "fold": fold}
        for direction, suffix in (("image_to_text", ""), ("text_to_image", "#0"))
        for number, rank in enumerate(ranks)
    ]
    rows = [rows[place] for place in order] if order is not None else rows
    pq.write_table(pa.Table.from_pylist(rows, schema=RANKS), path)
    return path


def test_queries_are_joined_by_what_they_are(tmp_path):
    random = np.random.default_rng(0)
    one, other = random.integers(1, 15, 200).tolist(), random.integers(1, 20, 200).tolist()
    first = write_ranks(tmp_path / "a.parquet", one)
    second = write_ranks(tmp_path / "b.parquet", other)
    shuffled = write_ranks(tmp_path / "c.parquet", other, order=random.permutation(400))
    found = paired_comparison(first, second)
    assert [each.to_dict() for each in found] == [each.to_dict() for each in paired_comparison(first, shuffled)]
    assert [(each.direction, each.k) for each in found] == [
        (direction, k) for direction in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    ]
    at_five = found[1]
    assert (at_five.first, at_five.second) == (np.mean(np.array(one) <= 5), np.mean(np.array(other) <= 5))
    assert at_five.paired.difference == pytest.approx(at_five.first - at_five.second)


def test_sides_swapped_change_the_sign_only(tmp_path):
    random = np.random.default_rng(1)
    files = [write_ranks(tmp_path / f"{side}.parquet", random.integers(1, 9, 300).tolist()) for side in "ab"]
    forth, back = paired_comparison(*files), paired_comparison(*reversed(files))
    for one, other in zip(forth, back, strict=True):
        assert one.paired.difference == -other.paired.difference
        assert one.paired.p_value == pytest.approx(other.paired.p_value, abs=0.02)


def test_the_same_picture_twice_is_two_queries(tmp_path):
    ranks = [{"direction": d, "query": "twin", "rank": r, "scoring": "cosine", "fold": None}
             for d in ("image_to_text", "text_to_image") for r in (1, 30)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(ranks, schema=RANKS), tmp_path / "a.parquet")
    found = paired_comparison(tmp_path / "a.parquet", tmp_path / "a.parquet")
    assert (found[0].queries, found[0].first, found[0].paired.interval) == (2, 0.5, (0.0, 0.0))


def test_other_queries_folds_scorings_and_tables_are_refused(tmp_path):
    first = write_ranks(tmp_path / "a.parquet", [1, 2, 3])
    more = write_ranks(tmp_path / "b.parquet", [1, 2, 3, 4])
    with pytest.raises(EvaluationError, match=r"0 of 3 are only in .*a\.parquet, 1 of 4 only in .*b\.parquet"):
        paired_comparison(first, more)
    with pytest.raises(EvaluationError, match=r"3 of 3 are only in .*a\.parquet"):
        paired_comparison(first, write_ranks(tmp_path / "c.parquet", [1, 2, 3], fold=0))
    with pytest.raises(EvaluationError, match=r"scored as cosine in .* and as ITC in"):
        paired_comparison(first, write_ranks(tmp_path / "d.parquet", [1, 2, 3], scoring="ITC"))
    old = pq.read_table(first).drop_columns(["fold"])
    pq.write_table(old, tmp_path / "old.parquet")
    with pytest.raises(EvaluationError, match=r'old\.parquet: this table of ranks has no column "fold"'):
        paired_comparison(first, tmp_path / "old.parquet")


@pytest.fixture
def measured(write_source, tmp_path):
    """The YAML of two measured recipes, whose models are untrained, and of a third that nobody measured."""
    architecture = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(architecture))
    small = {"model": str(tmp_path / "tiny.json"), "steps": 2, "batch_size": 4}
    settings = settings_of(
        write_source(12),
        trainers={"small": small, "longer": {**small, "steps": 3}, "longest": {**small, "steps": 4}},
        shard_size=20,
        recipes={
            name: {"captioners": [], "trainer": trainer}
            for name, trainer in (("one", "small"), ("other", "longer"), ("new", "longest"))
        },
    )
    path = tmp_path / "factory.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    factory = Factory.from_yaml(path)
    create_new_shards(factory)
    ingest_shard(factory, "shard-00000")
    for seed, name in enumerate(("one", "other", "new")):
        recipe = factory.config.recipe(name)
        shear_recipe(factory, recipe)
        merge_training_set(factory, recipe)
        model = create_clip_model(str(tmp_path / "tiny.json"), seed=seed)
        factory.store.make(
            Graph(factory).plan(Ref("checkpoint", (recipe.name,))),
            lambda draft, model=model: save_checkpoint(model, draft.folder),
        )
        if name != "new":
            measure_recipe(factory, recipe)
    return path


def test_command_compares_two_recipes(measured):
    shown = CliRunner().invoke(main, ["compare", str(measured), "one", "other"])
    assert shown.exit_code == 0, shown.output
    assert "same, zero-shot: one minus other" in shown.output
    assert shown.output.count("| cosine ") == 6
    printed = CliRunner().invoke(main, ["compare", str(measured), "one", "other", "--set", "same", "--json"])
    answer = json.loads(printed.output)
    assert (answer["first"], answer["second"], len(answer["comparisons"])) == ("one", "other", 6)
    for each in answer["comparisons"]:
        assert (each["queries"], each["evaluation_set"], each["stage"]) == (12, "same", "zero-shot")
        assert each["difference"] == pytest.approx(each["first"] - each["second"])
        assert each["interval"][0] <= each["difference"] <= each["interval"][1]
        assert 0 < each["p_value"] <= 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["one", "othr"], 'There is no recipe "othr"'),
        (["one", "new"], "retrieval_metrics [new]"),
        (
            ["one", "other", "--set", "coco"],
            'not the retrieval set "coco" in common: one was measured on same (zero-shot)',
        ),
    ],
)
def test_command_says_what_it_cannot_compare(measured, arguments, sentence):
    shown = CliRunner().invoke(main, ["compare", str(measured), *arguments])
    assert shown.exit_code == 2
    assert sentence in shown.output
    assert "Traceback" not in shown.output
