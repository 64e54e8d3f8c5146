"""Progress as it is shown: a bar on a terminal, lines in a file."""

import io
import sys

import pytest

from caploom.common import progress
from caploom.common.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def caption_ten(log=None) -> None:
    with track("captions", "images", parts=2, log=log) as bar:
        for _ in range(2):
            report = bar.part()
            report(2, 5)
            report(5, 5, 1)


def test_a_file_gets_lines_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    caption_ten()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("captions: 10 of 10 images, ")
    assert line.endswith(", 00:00 left, 2 failed")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    caption_ten()
    shown = sys.stderr.getvalue()
    assert "\rcaptions: 100%" in shown
    assert "10/10" in shown and "2 failed" in shown


def test_the_run_s_log_gets_its_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    caption_ten(lines.append)
    assert lines == capsys.readouterr().err.splitlines()


def test_what_the_last_line_said_is_not_said_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LOG_INTERVAL", 0.0)
    caption_ten()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len({line.split(" images")[0] for line in lines}) == 4
