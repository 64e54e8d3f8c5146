"""`caploom plan --cluster`: what captioning costs on GPUs, by rates that were measured or published, never made up."""

import json

import pytest
from click.testing import CliRunner
from small_factory import ColourBackend

from caploom.cli import main
from caploom.questions.cost.cluster import PUBLISHED, CaptionRate, cluster_costs, measured_rates
from caploom.stages.captions import caption_shard
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards


def run(*arguments):
    return CliRunner().invoke(main, ["plan", *map(str, arguments)])


def test_hours_days_and_price_follow_from_the_rate():
    (cost,) = cluster_costs(
        [CaptionRate("any", 2.0, "", "")], [3_000_000], gpus=4, gpus_per_machine=2, gpu_hour_price=1.5
    )
    assert cost.gpu_hours == pytest.approx(3_000_000 / 2 / 3600)
    assert cost.machine_hours == pytest.approx(cost.gpu_hours / 2)
    assert cost.days == pytest.approx(cost.gpu_hours / 4 / 24)
    assert cost.price == pytest.approx(cost.gpu_hours * 1.5)


def test_what_nobody_published_stays_unknown():
    told = cluster_costs(PUBLISHED, [1])
    assert {cost.rate.captioner for cost in told if cost.gpu_hours is None} == {
        "LLaVA-1.5 7B, 13B",
        "MiniGPT-4, Otter, Qwen-VL (the paper's)",
    }
    assert all(cost.rate.source.startswith("https://") for cost in told if cost.gpu_hours is not None)


def test_it_needs_no_factory_and_estimates_three_sizes():
    said = run("--cluster", "--gpus", 8, "--gpu-hour-price", 2)
    assert said.exit_code == 0, said.output
    for number in ("3,000,000", "15,000,000", "400,000,000", "days on 8 GPUs", "price", "unknown", "vLLM"):
        assert number in said.output
    told = json.loads(run("--cluster", "--images", 500, "--json").output)
    assert {each["images"] for each in told["captioning"]} == {500}
    assert {each["price"] for each in told["captioning"]} == {None}


def test_the_rates_of_a_store_come_first(make_factory, write_source, tmp_path):
    factory = make_factory(write_source(6))
    (unknown,) = measured_rates(factory)
    assert (unknown.per_second, unknown.basis) == (None, "it has not run in this store yet")
    for shard in create_new_shards(factory):
        ingest_shard(factory, shard)
        caption_shard(factory, "colours", shard, ColourBackend)
    (rate,) = measured_rates(factory)
    assert rate.per_second is not None
    assert rate.per_second > 0
    assert "6 captions of this captioner, on cpu" in rate.basis
    told = json.loads(run(tmp_path / "factory.yaml", "--cluster", "--json").output)["captioning"][0]
    assert (told["captioner"], told["source"]) == ("colours", "this store")
    assert told["gpu_hours"] == pytest.approx(3_000_000 / rate.per_second / 3600, rel=0.01, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Name the YAML whose run is to be previewed, or ask for --cluster."),
        (["--cluster", "--gpus", "0"], "0 is not in the range x>=1"),
        (["--cluster", "--gpu-hour-price", "-1"], "-1.0 is not in the range x>=0"),
    ],
)
def test_mistakes_are_sentences(arguments, sentence):
    said = run(*arguments)
    assert said.exit_code == 2
    assert sentence in said.output


def test_options_of_a_cluster_without_it_are_refused(make_factory, write_source, tmp_path):
    make_factory(write_source(1))
    said = run(tmp_path / "factory.yaml", "--gpus", 4)
    assert said.exit_code == 2
    assert "go with --cluster" in said.output
