"""The faults that the inbox's sensor reports, as alerts."""

from collections.abc import Sequence
from datetime import UTC, datetime

from caploom.alerts.alert import Alert, ui_page
from caploom.alerts.outbox import remember
from caploom.config.alerts import AlertKind
from caploom.config.factory import Factory
from caploom.errors import StoreError


def record_inbox_faults(factory: Factory, faults: Sequence[str], *, again: bool = True) -> None:
    """Record faults of the inbox for the sensor `alerts` to deliver.

    With `again`, each is new even if one like it was reported before (a folder that is gone once more); without, a
    fault that every scan finds again is reported once a day.
    """
    now = datetime.now(UTC)
    settings = factory.config.alerts
    found = {
        f"inbox {now.isoformat() if again else now.date()} {fault}": Alert(
            kind=AlertKind.INBOX,
            factory=factory.config.name,
            title="the inbox needs attention",
            sentence=fault,
            time=now.isoformat(timespec="seconds"),
            asset="raw_pairs",
            url=ui_page(settings, asset="raw_pairs"),
        )
        for fault in faults
    }
    try:
        remember(factory.store.root, found, settings)
    except StoreError:
        # The sensor `alerts` itself reports why alerts cannot be stored; images still come in.
        return
