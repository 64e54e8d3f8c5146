"""A small factory whose captioner is a server in the test's own process, so that workers cost no model."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
from endpoint_server import EndpointServer, Question
from small_factory import settings_of

from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards


def ingested(source: Path, **changes: Any) -> tuple[Factory, list[str]]:
    """The factory over a written source, and its shards."""
    settings = settings_of(source, **changes)
    factory = Factory.from_config(parse_config(settings, base=source.parent, source="ray.yaml"))
    shards = create_new_shards(factory)
    for shard in shards:
        ingest_shard(factory, shard)
    return factory, shards


def served(server: EndpointServer, **changes: Any) -> dict[str, Any]:
    """The captioners of a YAML: one, behind a server."""
    fields = {"backend": "openai", "url": server.url, "model": "tiny-llava", "prompt": "What is this?"}
    return {"colours": {**fields, "image_format": "png", "retries": 2, "timeout": 20, "concurrency": 4, **changes}}


def kill_who_asks(question: Question) -> None:
    """SIGKILL to the process at the other end of the request, as a crash inside a model would end it."""
    port = question.handler.client_address[1]
    for connection in psutil.net_connections("tcp4"):
        if connection.laddr and connection.laddr.port == port and connection.pid not in (None, os.getpid()):
            os.kill(connection.pid, signal.SIGKILL)
            return
    raise AssertionError("nobody has that connection")


def slowly(seconds: float) -> Any:
    """Answers each question after a while, with its picture's colour."""

    def reply(question: Question) -> None:
        time.sleep(seconds)
        question.say(f"Colour {question.image.getpixel((0, 0))}.")

    return reply
