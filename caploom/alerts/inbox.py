"""What the inbox's sensor says goes wrong, as alerts."""

from collections.abc import Sequence
from datetime import UTC, datetime

from caploom.alerts.alert import Alert, ui_page
from caploom.alerts.outbox import remember
from caploom.config.alerts import AlertKind
from caploom.config.factory import Factory
from caploom.errors import StoreError


def tell_inbox_faults(factory: Factory, faults: Sequence[str], *, again: bool = True) -> None:
    """Put faults of the inbox down for the sensor `alerts` to deliver.

    With `again`, each is news, though one like it was told before (a folder that is gone once more); without, a fault
    that each look finds anew is told once a day.
    """
    now = datetime.now(UTC)
    settings = factory.config.alerts
    found = {
        f"inbox {now.isoformat() if again else now.date()} {fault}": Alert(
            kind=AlertKind.INBOX,
            factory=factory.config.name,
            title="the inbox needs a look",
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
        # What keeps alerts from being kept, the sensor `alerts` says itself; images come in all the same.
        return
