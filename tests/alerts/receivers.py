"""A real HTTP endpoint and a real mail server that keep what they are sent."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from caploom.alerts.alert import Alert
from caploom.config.alerts import AlertKind


@dataclass
class Endpoint:
    """What it was sent; `answers` are the codes that it gives one after another, the last one forever."""

    url: str
    answers: list[int] = field(default_factory=lambda: [200])
    slow_seconds: float = 0.0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def endpoint(*answers: int, slow_seconds: float = 0.0) -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests.append((self.path, dict(self.headers), body))
            time.sleep(found.slow_seconds)
            code = found.answers.pop(0) if len(found.answers) > 1 else found.answers[0]
            self.send_response(code)
            if code in (301, 302, 307):
                self.send_header("Location", found.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            found.requests.append((self.path, dict(self.headers), b"GET"))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Endpoint(f"http://127.0.0.1:{server.server_port}/services/T0/very-secret", list(answers) or [200])
    found.slow_seconds = slow_seconds
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def mail_server(refuse: str | None = None) -> Iterator[tuple[int, list[Any]]]:
    """Its port, and the mails that it took; with `refuse` it answers every mail so."""
    mails: list[Any] = []

    class Keep:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            if refuse is not None:
                return refuse
            mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
            return "250 taken"

    with socket.socket() as free:  # the server cannot be asked for any port that is free
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(Keep(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield port, mails
    finally:
        controller.stop()


def alert(number: int = 1, **changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "kind": AlertKind.RUN_FAILURE,
        "factory": "demo",
        "title": f"the run ingest {number} failed",
        "sentence": f"raw_pairs: shard {number} cannot be read.",
        "time": "2026-11-23T09:00:00+00:00",
        "asset": "raw_pairs",
        "partition": f"shard-{number:05}",
        "run_id": f"run-{number}",
        "url": f"http://ui.example/runs/run-{number}",
    }
    return Alert(**{**fields, **changes})
