"""Alerts to be delivered and alerts already sent, kept in the store so that each is sent once.

An alert is recorded under a key before anything is sent, then sent to one channel at a time, and each delivery is
recorded at once: a process killed between sending and recording may repeat one message, and never loses one.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from caploom.alerts.alert import Alert
from caploom.alerts.deliver import LOG, Delivery, deliver
from caploom.config.alerts import AlertKind, AlertSettings
from caploom.errors import StoreError

FILE = "alerts.sqlite"
_REMEMBERED_SECONDS = 90 * 24 * 3600
_AT_ONCE = 500  # alerts in one message
_TABLES = """
create table if not exists alerts (key text primary key, alert text not null, told real not null);
create table if not exists deliveries (
    key text not null, channel text not null, state text not null, attempts integer not null,
    primary key (key, channel)
);
create index if not exists waiting on deliveries (channel, state);
"""


def alert_once(store_root: Path, key: str, alert: Alert, settings: AlertSettings) -> list[Delivery]:
    """Send an alert unless one was sent under this key before; return the deliveries of this call.

    Alerts that a channel refuses wait for `deliver_waiting`. Raises `StoreError` when the store cannot be written.

    Example:
        >>> alert = Alert(AlertKind.INBOX, "cc3m", "No disk space", "Free 2 GB.", "2026-11-23T09:00:00+00:00")
        >>> [delivery.channel for delivery in alert_once(Path("store"), "disk-full", alert, AlertSettings())]
        ['log']
        >>> alert_once(Path("store"), "disk-full", alert, AlertSettings())
        []
    """
    return deliver_waiting(store_root, settings) if remember(store_root, {key: alert}, settings) else []


def remember(store_root: Path, alerts: Mapping[str, Alert], settings: AlertSettings) -> int:
    """Record alerts for delivery, by their keys, and return how many are new.

    Alerts of kinds that the YAML does not name, and keys that are already known, are skipped.
    """
    wanted = {key: alert for key, alert in alerts.items() if alert.kind in settings.on}
    if not wanted or not settings.channels:
        return 0
    new = 0
    with _opened(store_root) as database:
        for key, alert in wanted.items():
            text = json.dumps(alert.fields())
            row = (key, text, time.time())
            if database.execute("insert or ignore into alerts values (?, ?, ?)", row).rowcount:
                new += 1
                each = [(key, channel) for channel in settings.channels]
                database.executemany("insert or ignore into deliveries values (?, ?, 'waiting', 0)", each)
        database.execute("delete from alerts where told < ?", (time.time() - _REMEMBERED_SECONDS,))
        database.execute("delete from deliveries where key not in (select key from alerts)")
    return new


def deliver_waiting(store_root: Path, settings: AlertSettings) -> list[Delivery]:
    """Send waiting alerts, one message per channel; after too many failures they are dropped, with a line in the log.

    Nothing is sent while another process is sending.
    """
    if not (store_root / FILE).exists():
        return []
    try:
        with FileLock(store_root / f".{FILE}.lock", timeout=0):
            return [found for channel in settings.channels for found in _deliver_to(channel, store_root, settings)]
    except Timeout:
        return []


def _deliver_to(channel: str, store_root: Path, settings: AlertSettings) -> list[Delivery]:
    with _opened(store_root) as database:
        rows = database.execute(
            "select key, alert, attempts from deliveries join alerts using (key)"
            " where channel = ? and state = 'waiting' order by told, key limit ?",
            (channel, _AT_ONCE),
        ).fetchall()
    if not rows:
        return []
    (found,) = deliver([_alert_of(text) for _, text, _ in rows], settings, [channel])
    given_up = [key for key, _, attempts in rows if found.fault is not None and attempts + 1 >= settings.attempts]
    with _opened(store_root) as database:
        for key, _, attempts in rows:
            state = "delivered" if found.fault is None else "given up" if key in given_up else "waiting"
            database.execute(
                "update deliveries set state = ?, attempts = ? where key = ? and channel = ?",
                (state, attempts + 1, key, channel),
            )
    if given_up:
        LOG.warning(
            "%s alerts are dropped on the channel %s after %s attempts: %s",
            len(given_up),
            channel,
            settings.attempts,
            found.fault,
        )
    return [found]


def _alert_of(text: str) -> Alert:
    fields: dict[str, Any] = json.loads(text)
    return Alert(**{**fields, "kind": AlertKind(fields["kind"])})


@contextmanager
def _opened(store_root: Path) -> Iterator[sqlite3.Connection]:
    """The database, in one transaction; raises `StoreError` when it cannot be used."""
    try:
        with closing(sqlite3.connect(store_root / FILE, timeout=20)) as database:
            database.executescript(_TABLES)
            with database:
                yield database
    except sqlite3.Error as error:
        raise StoreError(
            f"{store_root / FILE}: alerts cannot be stored there ({error}); make room, or delete the file and with it "
            "the record of alerts already sent."
        ) from None
