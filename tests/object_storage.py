"""An S3 server on loopback, whose answers a test can spoil."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class S3:
    """A running server. `spoil` gets each request's method and path, and gives the status to answer instead, or None.

    `code` is the error's code in such an answer; `seen` are the requests so far.
    """

    endpoint: str
    spoil: Callable[[str, str], int | None] = lambda method, path: None
    code: str = "InternalError"
    seen: list[tuple[str, str, str]] = field(default_factory=list)


def serve() -> tuple[S3, Any]:
    """Start moto's S3 in a thread behind the spoiler; gives it and what shuts it down."""
    from moto.server import create_backend_app
    from werkzeug.serving import make_server

    app = create_backend_app("s3")

    def spoiled(environ: dict[str, Any], start_response: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        server.seen.append((method, path, environ.get("QUERY_STRING", "")))
        status = server.spoil(method, path)
        if status is None:
            return app(environ, start_response)
        if status == 0:  # an answer that does not come
            time.sleep(1.5)
            status = 500
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = f"<Error><Code>{server.code}</Code><Message>{server.code} by the test</Message></Error>".encode()
        start_response(f"{status} Spoiled", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if method == "HEAD" else [body]

    http = make_server("127.0.0.1", 0, spoiled, threaded=True)
    server = S3(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()

    def stop() -> None:
        http.shutdown()
        thread.join()

    return server, stop
