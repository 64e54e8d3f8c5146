"""Small real cases for the harness to run in processes of their own."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.cases import Case, Outcome, Skipped, Verdict
from benchmarks.child import Done, Job

_BUSY_CHILD = """
import time
held = bytearray(150_000_000)
started = time.process_time()
while time.process_time() - started < 0.5:
    pass
"""


def count_words(job: Job) -> Done:
    with job.measured():
        words = (job.folder / "text.txt").read_text().split()
    return Done(len(words), {"first": words[0]}, {"word-counter": job.options["version"]})


def work_in_a_child(job: Job) -> Done:
    with job.measured():
        subprocess.run([sys.executable, "-c", _BUSY_CHILD], check=True)
    return Done(1)


def break_down(job: Job) -> Done:
    raise ValueError("this case is broken")


class Words:
    """Counts the words of a file in two cases; a third has no peer here."""

    size = 5
    quick_size = 2
    tiny_size = 1
    packages = ("psutil",)

    def prepare(self, folder: Path, size: int) -> None:
        (folder / "text.txt").write_text("word " * size)

    def cases(self, size: int) -> list[Case | Skipped]:
        target = "tests.benchmarks.small_cases:count_words"
        return [
            Case("ours", "words", target, {"version": "1"}),
            Case("peer", "words", target, {"version": "2"}),
            Skipped("other", "it is not installed here."),
        ]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        ours, peer = outcomes["ours"], outcomes["peer"]
        return Verdict({"vs_peer": ours.rate / peer.rate}, {"peer": list(ours.results) == list(peer.results)})


class OneCase(Words):
    """A single case."""

    def __init__(self, function: str) -> None:
        self._target = f"tests.benchmarks.small_cases:{function}"

    def cases(self, size: int) -> list[Case | Skipped]:
        return [Case("one", "words", self._target)]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        return Verdict()
