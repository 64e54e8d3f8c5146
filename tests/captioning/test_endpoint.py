"""What the endpoint backend asks of a real server, and how it goes about it."""

import itertools
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pyarrow as pa
import pytest
from endpoint_server import EndpointServer, completion, name, results, wait_until

from caploom.captioning.endpoint_client import request_seed
from caploom.captioning.settings import EndpointCaptioner

KEY = "sk-0123456789abcdefghij"


def test_every_caption_is_of_its_image_with_many_requests_in_flight(numbered_images, open_endpoint):
    def reply(question):
        wait_until(lambda: server.most_in_flight == 6, 2)
        time.sleep((question.number * 7 % 5) / 200)
        name(question)

    images = numbered_images(30)
    with EndpointServer(reply) as server:
        backend = open_endpoint(server.url, concurrency=6)
        started = time.monotonic()
        chunks = list(backend.caption(images))
        elapsed = time.monotonic() - started
    captioned, failed = results(chunks)
    assert {image: generation.text for image, generation in captioned.items()} == {
        f"{number}.png": f"Picture {number}." for number in range(30)
    }
    assert not failed
    assert server.most_in_flight == 6
    assert all(generation.tokens == 5 and generation.finish_reason == "stop" for generation in captioned.values())
    assert 0.5 * elapsed < sum(item.seconds for each in chunks for item in each.captioned) <= elapsed


def test_the_request_says_what_the_settings_say(numbered_images, open_endpoint, monkeypatch):
    monkeypatch.setenv("A_KEY", f"{KEY}\n")
    bodies = []

    def reply(question):
        bodies.append(question.body)
        assert question.image.size == (32, 16)
        assert question.format == "data:image/jpeg"
        question.say("A text that was cut", finish_reason="length", tokens=None)

    (ref,) = numbered_images(1, size=(100, 50))
    settings = {
        "prompt": "Improve: {raw_caption}",
        "system_prompt": "You see.",
        "image_side": 32,
        "image_format": "jpeg",
        "seed": 7,
        "api_key_env": "A_KEY",
        "decoding": {"sample": True, "temperature": 0.6, "top_p": 0.8, "max_new_tokens": 11, "stop_strings": ["###"]},
        "extra_body": {"repetition_penalty": 1.2, "max_tokens": None, "max_completion_tokens": 11},
    }
    with EndpointServer(reply) as server:
        captioned, _ = results(open_endpoint(server.url, **settings).caption([ref]))
    (body,) = bodies
    system, user = body.pop("messages")
    assert system == {"role": "system", "content": "You see."}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert user["content"][1]["text"] == "Improve: photo 0"
    assert body == {
        "model": "tiny-llava",
        "temperature": 0.6,
        "top_p": 0.8,
        "max_completion_tokens": 11,
        "repetition_penalty": 1.2,
        "stop": ["###"],
        "seed": request_seed(ref.image_id, 7),
    }
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert (captioned["0.png"].finish_reason, captioned["0.png"].tokens) == ("length", None)


def test_a_request_s_seed_follows_image_and_seed():
    assert request_seed("a", 0) == request_seed("a", 0)
    assert len({request_seed(image, seed) for image in "abc" for seed in range(50)}) == 150
    assert all(0 <= request_seed("a", seed) < 2**31 for seed in range(100))


def test_greedy_is_temperature_zero_and_a_left_in_stop_string_is_cut(numbered_images, open_endpoint):
    def reply(question):
        assert question.body["temperature"] == 0
        assert "top_p" not in question.body
        assert "stream" not in question.body
        question.say(" A red square. ### Human: more", finish_reason="length")

    with EndpointServer(reply) as server:
        captioned, _ = results(
            open_endpoint(server.url, decoding={"stop_strings": ["END", "###"]}).caption(numbered_images(1))
        )
    assert (captioned["0.png"].text, captioned["0.png"].finish_reason) == ("A red square.", "stop")


@pytest.mark.parametrize(
    ("status", "headers", "least_seconds"), [(429, {"Retry_After": "0.9"}, 0.9), (503, {}, 0.35), (500, {}, 0.35)]
)
def test_what_passes_is_tried_again(numbered_images, open_endpoint, status, headers, least_seconds):
    def reply(question):
        if question.attempt == 1:
            question.answer(status, {"error": {"message": "later"}}, **headers)
        else:
            name(question)

    with EndpointServer(reply) as server:
        started = time.monotonic()
        captioned, failed = results(open_endpoint(server.url, retries=1).caption(numbered_images(2)))
    assert time.monotonic() - started > least_seconds
    assert len(captioned) == 2
    assert not failed
    assert server.asked == {0: 2, 1: 2}


def test_what_no_file_can_hold_is_replaced(numbered_images, open_endpoint):
    usage = {"completion_tokens": 10**30}
    answer = {**completion("half a \ud83d, a whole \ud83d\ude00, a \x00"), "usage": usage}
    with EndpointServer(lambda question: question.answer(200, answer)) as server:
        captioned, _ = results(open_endpoint(server.url).caption(numbered_images(1)))
    assert pa.array([captioned["0.png"].text])[0].as_py() == "half a \ufffd, a whole 😀, a \x00"
    assert captioned["0.png"].tokens is None


def test_an_image_that_cannot_be_read_is_never_sent(numbered_images, open_endpoint, tmp_path):
    images = numbered_images(4)
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_bytes((tmp_path / "3.png").read_bytes())
    with EndpointServer(name) as server:
        captioned, failed = results(open_endpoint(server.url).caption(images))
    assert {image: failure.reason for image, failure in failed.items()} == {
        "1.png": "missing_image",
        "2.png": "image_changed",
    }
    assert sorted(captioned) == ["0.png", "3.png"]
    assert server.asked == {0: 1, 3: 1}


def test_an_endless_source_is_read_no_further_than_needed_and_closing_does_not_wait(numbered_images, open_endpoint):
    taken = []

    def endless():
        for ref in itertools.cycle(images):
            taken.append(ref)
            yield ref

    release = threading.Event()

    def reply(question):
        if len(server.headers) > 3:
            release.wait(5)
        name(question)

    images = numbered_images(4)
    with EndpointServer(reply) as server:
        chunks = open_endpoint(server.url, concurrency=5).caption(endless())
        captions = len(next(chunks).captioned)
        assert len(taken) <= 10 + captions
        started = time.monotonic()
        chunks.close()
        assert time.monotonic() - started < 0.5
        release.set()
        # Those in flight finish; nobody asks for the others.
        assert wait_until(lambda: server.in_flight == 0)
        time.sleep(0.1)
        assert len(server.headers) <= captions + 10


def test_an_error_of_the_source_comes_through(numbered_images, open_endpoint):
    def broken():
        yield from numbered_images(2)
        raise OSError("the table ends here")

    with EndpointServer(name) as server, pytest.raises(OSError, match="the table ends here"):
        list(open_endpoint(server.url).caption(broken()))


@pytest.mark.parametrize(
    "changes",
    [
        {"decoding": {"min_new_tokens": 2}},
        {"decoding": {"no_repeat_ngram_size": 3}},
        {"decoding": {"repetition_penalty": 1.1}},
        {"decoding": {"num_beams": 5}},
        {"decoding": {"length_penalty": 0.5}},
        {"extra_body": {"stream": True}},
    ],
    ids=str,
)
def test_what_the_protocol_has_no_field_for_is_refused(changes):
    fields = {"backend": "openai", "model": "m", "prompt": "p", "url": "http://127.0.0.1:1/v1"}
    with pytest.raises(ValueError, match="extra_body"):
        EndpointCaptioner.model_validate({**fields, **changes})


def test_an_interrupted_run_ends_though_its_requests_hang(numbered_images, tmp_path):
    release = threading.Event()
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from caploom.captioning.backend import ImageRef
        from caploom.captioning.endpoint import EndpointBackend
        from caploom.captioning.settings import EndpointCaptioner
        from caploom.storage.store import Store
        url, image_id, path = sys.argv[1:]
        settings = {"backend": "openai", "url": url, "model": "m", "prompt": "p", "timeout": 60}
        backend = EndpointBackend(EndpointCaptioner.model_validate(settings), Store(Path(path).parent))
        list(backend.caption([ImageRef(image_id, path, path)] * 10))
    """)
    (ref,) = numbered_images(1)
    with EndpointServer(lambda question: release.wait(30)) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", script, server.url, ref.image_id, ref.path],
            stderr=subprocess.PIPE,
            # A shell's background jobs ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            assert wait_until(lambda: server.in_flight == 10, 30)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=10)
        finally:
            process.kill()
            release.set()
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in told
