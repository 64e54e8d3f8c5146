"""Alerts to an HTTP endpoint.

The address is a secret, so nothing here ever prints it. The standard library posts because it logs nothing: urllib3
and httpx write the address into the log when they retry.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from caploom.alerts.alert import MOST_LISTED, Alert, subject_of, text_of
from caploom.alerts.faults import ChannelFault, secret
from caploom.config.alerts import WebhookSettings

_PAUSE_SECONDS = 0.5
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An endpoint that redirects elsewhere is refused: the token must not reach another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(alerts: Sequence[Alert], settings: WebhookSettings) -> None:
    """Send one message about all alerts; raises `ChannelFault` when the endpoint does not accept it."""
    request = _request(alerts, settings)
    for attempt in range(settings.retries + 1):
        try:
            _send(request, settings.timeout_seconds)
            break
        except ChannelFault as fault:
            if not fault.passing or attempt == settings.retries:
                raise
        time.sleep(_PAUSE_SECONDS * 2**attempt)


def _request(alerts: Sequence[Alert], settings: WebhookSettings) -> urllib.request.Request:
    url = secret(settings.url_from_env)
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        known = False
    if not known or not url.isascii() or any(each.isspace() for each in url):
        raise ChannelFault(f"The variable {settings.url_from_env} is not an http or https address.")
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "caploom"}
    if settings.token_from_env is not None:
        token = secret(settings.token_from_env)
        if not token.isascii() or not token.isprintable():
            raise ChannelFault(f"The variable {settings.token_from_env} contains characters that no header can carry.")
        headers["Authorization"] = f"Bearer {token}"
    body = slack_body(alerts) if settings.format == "slack" else json_body(alerts)
    return urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")


def _send(request: urllib.request.Request, timeout: float) -> None:
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=timeout) as response:
            response.read(1024)
    except urllib.error.HTTPError as error:
        error.close()
        raise ChannelFault(f"The webhook answered {error.code}.", passing=error.code in _TRY_AGAIN) from None
    except TimeoutError:
        raise ChannelFault("The webhook did not answer in time.", passing=True) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Only the kind of error: its text may name the address.
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        kind = type(cause).__name__ if isinstance(cause, Exception) else type(error).__name__
        raise ChannelFault(f"The webhook cannot be reached ({kind}).", passing=True) from None


def json_body(alerts: Sequence[Alert]) -> dict[str, Any]:
    """Everything, field by field."""
    listed = [alert.fields() for alert in alerts[:MOST_LISTED]]
    return {"text": subject_of(alerts), "alerts": listed, "more": len(alerts) - len(listed)}


def slack_body(alerts: Sequence[Alert]) -> dict[str, Any]:
    """A text as Slack and Mattermost show it; nothing in it is markup or mentions anyone."""
    text = f"{subject_of(alerts)}\n{text_of(alerts)}"
    for mark, spelled in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("@", "@\u200b"), ("`", "'")):
        text = text.replace(mark, spelled)
    return {"text": text}
