"""What an alert says, as text for people. Names and sentences may contain anything that a user's files contain."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from caploom.config.alerts import AlertKind, AlertSettings

UI_VARIABLE = "CAPLOOM_UI_URL"
MOST_LISTED = 20
"""Alerts that one message spells out; the others are only counted."""

_TITLE, _SENTENCE = 150, 600  # characters


@dataclass(frozen=True)
class Alert:
    """Something that went wrong.

    Attributes:
        kind: the kind of alert.
        factory: the factory's name.
        title: a few words.
        sentence: what happened.
        time: when, ISO 8601 with the zone.
        asset: the asset's key with slashes, if it is about one.
        partition: the asset's partition.
        run_id: the run.
        url: a page of the UI about it.
    """

    kind: AlertKind
    factory: str
    title: str
    sentence: str
    time: str
    asset: str | None = None
    partition: str | None = None
    run_id: str | None = None
    url: str | None = None

    def fields(self) -> dict[str, Any]:
        """As JSON values, with every text plain and bounded in length."""
        texts = {key: plain(value) if isinstance(value, str) else value for key, value in asdict(self).items()}
        return {**texts, "title": plain(self.title, _TITLE)}


def ui_page(settings: AlertSettings, *, run_id: str | None = None, asset: str | None = None) -> str | None:
    """The UI's page about a run or an asset; None when the UI's address is not configured."""
    root = settings.ui_url or os.environ.get(UI_VARIABLE, "").rstrip("/")
    if not root.startswith(("http://", "https://")):
        return None
    if run_id is not None:
        return f"{root}/runs/{quote(run_id, safe='')}"
    return f"{root}/assets/{quote(asset)}" if asset is not None else root


def plain(text: str, limit: int = _SENTENCE) -> str:
    """A text on one line, without control characters or text direction marks, cut to a length."""
    spoken = "".join(" " if unicodedata.category(each) in _UNSPOKEN else each for each in text)
    line = " ".join(spoken.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


_UNSPOKEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def subject_of(alerts: Sequence[Alert]) -> str:
    """One line about all of them."""
    first = alerts[0]
    what = first.title if len(alerts) == 1 else f"{len(alerts):,} alerts, the first: {first.title}"
    return plain(f"Caploom {first.factory}: {what}", _TITLE)


def lines_of(alert: Alert) -> list[str]:
    """An alert in a few lines: its title, its sentence and where to look."""
    texts = alert.fields()
    of = " ".join(part for part in (texts["asset"], f"[{texts['partition']}]" if texts["partition"] else None) if part)
    head = f"{texts['title']} ({of})" if of else texts["title"]
    return [head, texts["sentence"], *([texts["url"]] if texts["url"] else [])]


def text_of(alerts: Sequence[Alert]) -> str:
    """A message about all of them, one paragraph per alert."""
    paragraphs = ["\n".join(lines_of(alert)) for alert in alerts[:MOST_LISTED]]
    more = len(alerts) - MOST_LISTED
    return "\n\n".join([*paragraphs, *([f"And {more:,} more."] if more > 0 else [])])
