"""A captioner that costs a known time: an HTTP server like a model's, one caption at a time.

`python -m benchmarks.ray.server MILLISECONDS` prints its address and serves until it is killed.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "five-milliseconds"
_ANSWER = json.dumps(
    {
        "object": "chat.completion",
        "choices": [
            {"message": {"role": "assistant", "content": "A scene from a picture book."}, "finish_reason": "stop"}
        ],
        "usage": {"completion_tokens": 7},
    }
).encode()
_MODELS = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for headers and body
    seconds = 0.0
    model = threading.Lock()

    def do_GET(self) -> None:
        self._say(_MODELS)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.model:
            time.sleep(self.seconds)
        self._say(_ANSWER)

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing: the address is all that is read."""


if __name__ == "__main__":
    _Handler.seconds = float(sys.argv[1]) / 1000
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()
