import json

import pytest
from click.testing import CliRunner
from small_cases import OneCase, Words

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.cases import BenchmarkError
from benchmarks.harness import run_benchmark, table
from benchmarks.processes import ForkedProcesses


def test_a_report_has_the_one_shape_and_runs_are_interleaved():
    said = []
    report = run_benchmark("words", Words(), size=5, repeats=2, say=said.append)
    assert json.loads(json.dumps(report)) == report
    assert (report["name"], report["size"], report["equal"]) == ("words", 5, {"peer": True})
    assert report["ratios"]["vs_peer"] > 0
    assert set(report["versions"]) == {"psutil", "word-counter"}
    assert list(report["cases"]) == ["ours", "peer"]
    for case in report["cases"].values():
        assert set(case) == {"cpu_s", "wall_s", "peak_rss_mb", "rate", "unit", "n"}
        assert (case["unit"], case["n"]) == ("words/s", 2)
        assert case["peak_rss_mb"] > 5
    runs = [line.split(": ")[1] for line in said if "run of" in line or "warm-up of" in line]
    assert runs == [
        *["warm-up of ours", "warm-up of peer"],
        *["run of peer", "run of ours"],
        *["run of ours", "run of peer"],
    ]
    assert "words: other is skipped: it is not installed here." in said
    assert "vs_peer" in table(report)


def test_cpu_and_memory_of_a_case_s_own_children_count():
    report = run_benchmark("words", OneCase("work_in_a_child"), size=1, repeats=1, warm_up=False, say=str)
    assert report["cases"]["one"]["cpu_s"] >= 0.5
    assert report["cases"]["one"]["peak_rss_mb"] >= 150


def test_a_case_that_fails_is_told_with_its_output():
    with pytest.raises(BenchmarkError, match=r"(?s)The case one ended with exit status 1.*this case is broken"):
        run_benchmark("words", OneCase("break_down"), size=1, repeats=1, say=str)


def test_a_fork_that_fails_is_told_with_its_output_and_the_next_one_runs():
    with ForkedProcesses() as forked:
        with pytest.raises(BenchmarkError, match=r"(?s)The case one ended with exit status 1.*this case is broken"):
            run_benchmark("words", OneCase("break_down"), size=1, repeats=1, warm_up=False, processes=forked, say=str)
        report = run_benchmark("words", Words(), size=5, repeats=2, warm_up=False, processes=forked, say=str)
    assert report["equal"] == {"peer": True}
    assert set(report["versions"]) == {"psutil", "word-counter"}
    assert all(case["peak_rss_mb"] > 5 for case in report["cases"].values())


@pytest.mark.parametrize(("option", "size"), [("--quick", 2), ("--tiny", 1)])
def test_smaller_runs_have_their_own_sizes_and_write_the_same_report(option, size, monkeypatch, tmp_path):
    monkeypatch.setitem(BENCHMARKS, "words", "tests.benchmarks.small_cases:Words")
    result = CliRunner().invoke(main, ["words", option, "--json", str(tmp_path / "report.json")])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["size"], report["cases"]["ours"]["n"], report["equal"]) == (size, 1, {"peer": True})
    assert "vs_peer" in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["captoning"], 'there is no benchmark "captoning"; known: captioning'),
        (["captioning", "--set", "modle=x"], '--set modle: captioning has no option "modle"; it has: model, prompt.'),
        (["captioning", "--set", "model=demo:none"], '--set model=demo:none: there is no demo captioner "demo:none"'),
        (["captioning", "--set", "model"], "--set model: write KEY=VALUE."),
        (["all", "--size", "9"], "name one instead of all"),
    ],
)
def test_a_mistake_on_the_command_line_gets_a_sentence(arguments, sentence):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output
