"""A small real HTTP server that answers as a test says: it looks at each image that is sent and counts what happens."""

import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from caploom.errors import CaptionerError


def completion(text: Any, finish_reason: str = "stop", tokens: int | None = 5) -> dict[str, Any]:
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    message = {"role": "assistant", "content": text}
    return {"object": "chat.completion", "choices": [{"message": message, "finish_reason": finish_reason}], **usage}


def chunk(text: str, **choice: Any) -> bytes:
    fields = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}, **choice}]}
    return f"data: {json.dumps(fields)}\n\n".encode()


class Question:
    """A request as the server sees it: its JSON, the image in it, and how often that image was asked about."""

    def __init__(self, server: "EndpointServer", handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        self.handler = handler
        self.body = body
        uri = body["messages"][-1]["content"][0]["image_url"]["url"]
        self.format, _, data = uri.partition(";base64,")
        self.image = Image.open(io.BytesIO(base64.b64decode(data)))
        self.number = self.image.getpixel((0, 0))[0]
        with server.lock:
            server.asked[self.number] += 1
            self.attempt = server.asked[self.number]

    def answer(self, status: int, body: Any, **headers: str) -> None:
        """`body` is bytes as they are, or JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.handler.send_response(status)
        kind = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in {**kind, **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(data)

    def say(self, text: Any, **completed: Any) -> None:
        self.answer(200, completion(text, **completed))

    def begin_stream(self) -> Callable[[bytes], None]:
        """What sends the stream's pieces; it raises `OSError` once the client has hung up."""
        self.handler.send_response(200)
        self.handler.send_header("Content-Type", "text/event-stream")
        self.handler.send_header("Connection", "close")
        self.handler.end_headers()
        self.handler.close_connection = True

        def send(piece: bytes) -> None:
            self.handler.wfile.write(piece)
            self.handler.wfile.flush()

        return send


class EndpointServer(ThreadingHTTPServer):
    """Answers `POST /v1/chat/completions` with `reply(question)` and `GET /v1/models` with its models."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, reply: Callable[[Question], None], models: Sequence[str] = ("tiny-llava", "tiny-otter")) -> None:
        self.reply = reply
        self.models = models
        self.lock = threading.Lock()
        self.asked: Counter[int] = Counter()
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.dead = False
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> "EndpointServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        """Stop listening, and drop what is connected at its next request."""
        self.dead = True
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: EndpointServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        data = json.dumps({"data": [{"id": model} for model in self.server.models]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        if server.dead:
            self.close_connection = True
            return
        with server.lock:
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            server.reply(Question(server, self, body))
        finally:
            with server.lock:
                server.in_flight -= 1

    def log_message(self, *_: object) -> None:
        pass


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def results(chunks):
    """Texts by image, failures by image; no image comes back twice."""
    captioned, failed = {}, {}
    for each in chunks:
        for item in each.captioned:
            assert item.ref.image not in captioned | failed
            captioned[item.ref.image] = item.generation
        for item in each.failed:
            assert item.ref.image not in captioned | failed
            failed[item.ref.image] = item
    return captioned, failed


def name(question):
    """A caption that tells the image."""
    question.say(f"Picture {question.number}.")


def trouble(chunks):
    """The error that ends a run, and what came before it."""
    before = []
    with pytest.raises(CaptionerError) as caught:
        for each in chunks:
            before.append(each)
    return caught.value, *results(before)
