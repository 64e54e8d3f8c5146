"""The endpoint backend against a server that people use, with the model that the in-process backend runs."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from small_factory import captioner_of

import caploom
from caploom.captioning.backend import ImageRef, load_backend
from caploom.demo.scenes import compose, render
from caploom.shearing.apply import shear_span
from caploom.shearing.settings import ShearStep
from caploom.storage.opening import open_store
from caploom.storage.records import image_identity

MODEL = Path(caploom.__file__).parent / "demo" / "captioners" / "tiny-llava"
PROMPT = "Describe <image> in English:"
# The prompt as it was written, placeholder included: what the in-process backend gives the processor.
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)
DECODING = {"max_new_tokens": 44}

pytestmark = pytest.mark.slow  # the server imports torch and transformers anew


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The model's name and the url of a `transformers serve` that serves it."""
    folder = tmp_path_factory.mktemp("served") / "tiny-llava"
    shutil.copytree(MODEL, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    with (folder.parent / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), *address],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, folder.parent / "log")
        yield str(folder), f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def wait_for(url, server, log, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    refs = []
    for index in range(16):
        path = folder / f"{index}.png"
        render(compose(0, "evaluation", index)).save(path)
        refs.append(ImageRef(image_identity(path.read_bytes()), str(path), path.name))
    return refs


def generations(settings, refs, tmp_path):
    backend = load_backend(settings, open_store(tmp_path / "store"))
    chunks = list(backend.caption(refs))
    backend.close()
    assert not [failure for chunk in chunks for failure in chunk.failed]
    return {item.ref.image: item.generation for chunk in chunks for item in chunk.captioned}


def endpoint(served, **changes):
    model, url = served
    asked = {"backend": "openai", "model": model, "url": url, "prompt": PROMPT, "image_format": "png"}
    return captioner_of({**asked, "concurrency": 4, "decoding": DECODING, **changes})


@pytest.fixture(scope="module")
def in_process(scenes, tmp_path_factory):
    settings = captioner_of({"model": "demo:tiny-llava", "prompt": PROMPT, "decoding": DECODING})
    return generations(settings, scenes, tmp_path_factory.mktemp("in-process"))


def test_the_endpoint_says_what_the_model_says_in_this_process(served, scenes, in_process, tmp_path):
    said = generations(endpoint(served), scenes, tmp_path)
    assert len({generation.text for generation in said.values()}) == len(scenes)
    assert {image: (generation.text, generation.finish_reason) for image, generation in said.items()} == {
        image: (generation.text, generation.finish_reason) for image, generation in in_process.items()
    }
    assert all(generation.tokens > 5 for generation in said.values())


def test_stopping_at_the_shear_gives_the_same_sheared_captions(served, scenes, in_process, tmp_path):
    first = [ShearStep.model_validate("first_sentence")]
    said = generations(endpoint(served).stopping_at([first]), scenes, tmp_path)
    assert {
        image: generation.text[slice(*shear_span(generation.text, first))] for image, generation in said.items()
    } == {
        image: generation.text[slice(*shear_span(generation.text, first))] for image, generation in in_process.items()
    }
    assert "shear" in {generation.finish_reason for generation in said.values()}
    assert sum(len(generation.text) for generation in said.values()) < sum(
        len(generation.text) for generation in in_process.values()
    )


def test_the_token_cap_is_the_server_s(served, scenes, tmp_path):
    said = generations(endpoint(served, decoding={"max_new_tokens": 3}), scenes[:3], tmp_path)
    assert {(generation.tokens, generation.finish_reason) for generation in said.values()} == {(3, "length")}
