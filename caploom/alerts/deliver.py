"""Sends one message about some alerts to each channel; a fault of one channel does not stop the others."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from caploom.alerts import mail, webhook
from caploom.alerts.alert import Alert, lines_of
from caploom.alerts.faults import ChannelFault
from caploom.config.alerts import AlertSettings

LOG = logging.getLogger("caploom.alerts")


@dataclass(frozen=True)
class Delivery:
    """The outcome of a message on one channel; `fault` is None when it was delivered."""

    channel: str
    fault: str | None = None


def deliver(alerts: Sequence[Alert], settings: AlertSettings, channels: Sequence[str] | None = None) -> list[Delivery]:
    """Send one message about the alerts to the channels that are switched on, or only to the given ones."""
    wanted = [each for each in settings.channels if channels is None or each in channels]
    return [_deliver(channel, alerts, settings) for channel in wanted] if alerts else []


def _deliver(channel: str, alerts: Sequence[Alert], settings: AlertSettings) -> Delivery:
    try:
        _CHANNELS[channel](alerts, settings)
    except ChannelFault as fault:
        return Delivery(channel, str(fault))
    return Delivery(channel)


def _log(alerts: Sequence[Alert], settings: AlertSettings) -> None:
    for alert in alerts:
        LOG.warning("%s", " | ".join(lines_of(alert)))


def _post(alerts: Sequence[Alert], settings: AlertSettings) -> None:
    if settings.webhook is not None:
        webhook.post(alerts, settings.webhook)


def _mail(alerts: Sequence[Alert], settings: AlertSettings) -> None:
    if settings.email is not None:
        mail.send(alerts, settings.email)


_CHANNELS: dict[str, Callable[[Sequence[Alert], AlertSettings], None]] = {
    "log": _log,
    "webhook": _post,
    "email": _mail,
}
