"""How pytest-xdist hands tests to its workers: a file to one worker, the longest first, and clusters one at a time."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    "tests/e2e/test_headless_run.py": "tiny factory",
    "tests/e2e/test_report_page.py": "tiny factory",
    "tests/e2e/test_ui.py": "tiny factory",
    "tests/e2e/test_run_past_one_machine.py": "ray",
    "tests/stages/on_ray/": "ray",
    "tests/training/test_nodes.py": "ray",
}
"""Files that one worker runs one after another, by how their paths begin.

Those of the tiny factory ask about the same first run of it; those of Ray each start a cluster of several nodes.
"""

LONGEST = (
    "tests/e2e/test_new_images.py",
    "tests/e2e/test_killed_services.py",
    "tests/e2e/test_staleness_in_the_ui.py",
    "tests/e2e/test_run_past_one_machine.py",
    "tests/e2e/",
    "tests/benchmarks/test_every_benchmark.py",
)
"""How the paths of the longest files begin. They are handed out first: what one worker begins last should be short."""


class FilesLongestFirst(LoadScopeScheduling):
    """What `--dist loadfile` does, in the order of the collected tests, and with files that stay together."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # xdist's own order is by the number of tests, however short they are

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((group for beginning, group in TOGETHER.items() if path.startswith(beginning)), path)


def longest_first(item: pytest.Item) -> int:
    """A key to sort tests by."""
    return next((place for place, path in enumerate(LONGEST) if item.nodeid.startswith(path)), len(LONGEST))
