"""The endpoint backend against a server that answers what real servers answer on bad days."""

import json
import logging
import socket
import threading
import time
import traceback

import pytest
from endpoint_server import EndpointServer, completion, name, results, trouble, wait_until

from caploom.captioning.endpoint import IN_A_ROW
from caploom.errors import CaptionerError

KEY = "sk-0123456789abcdefghij"


def test_a_request_that_hangs_is_given_up(numbered_images, open_endpoint):
    release = threading.Event()

    def reply(question):
        if question.number == 2:
            release.wait(5)
        name(question)

    with EndpointServer(reply) as server:
        captioned, failed = results(open_endpoint(server.url, timeout=0.4).caption(numbered_images(5)))
        release.set()
    assert sorted(captioned) == ["0.png", "1.png", "3.png", "4.png"]
    assert failed["2.png"].reason == "endpoint_timeout"
    assert failed["2.png"].detail == "2.png: the server did not answer within 0.4 seconds."


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>It works!</body></html>",
        b"{",
        b"",
        b"[" * 100_000,
        b"\xff\xfe",
        {"choices": []},
        {"choices": None},
        {"choices": [[]]},
        [],
        {"error": "out of cheese"},
        completion([{"type": "text", "text": "A red square."}]),
        completion(3),
    ],
    ids=lambda body: str(body)[:30],
)
def test_an_answer_that_is_none_is_a_failure(numbered_images, open_endpoint, body):
    with EndpointServer(lambda question: question.answer(200, body)) as server:
        captioned, failed = results(open_endpoint(server.url).caption(numbered_images(1)))
    assert not captioned
    assert failed["0.png"].reason == "endpoint_garbage"
    assert failed["0.png"].detail.startswith("0.png: the server's answer is not a chat completion (")
    assert len(failed["0.png"].detail) < 400


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_a_model_that_says_nothing_is_a_failure_of_that_image(numbered_images, open_endpoint, text):
    with EndpointServer(lambda question: question.say(text)) as server:
        _, failed = results(open_endpoint(server.url).caption(numbered_images(20)))
    assert {failure.reason for failure in failed.values()} == {"empty_caption"}
    assert len(failed) == 20


def test_a_server_that_dies_half_way_ends_the_run_and_blames_no_image(numbered_images, open_endpoint):
    def reply(question):
        if question.number == 11:
            wait_until(lambda: server.dead, 2)  # a late answer is no sign of life
            time.sleep(0.1)
        if question.number < 12:
            name(question)
        elif not server.dead:
            server.die()

    with EndpointServer(reply) as server:
        error, captioned, failed = trouble(open_endpoint(server.url, concurrency=3).caption(numbered_images(60)))
    assert f"{len(captioned)} captions of this run are kept: run it again" in str(error)
    assert 10 <= len(captioned) <= 12
    assert not failed


def test_eight_images_in_a_row_without_an_answer_end_the_run_however_few_are_in_flight(numbered_images, open_endpoint):
    def reply(question):
        if question.number < 20:
            name(question)
        else:
            question.answer(200, b"<html>Bad Gateway</html>")

    with EndpointServer(reply) as server:
        error, captioned, failed = trouble(open_endpoint(server.url, concurrency=1).caption(numbered_images(60)))
    assert "does not answer any longer (" in str(error)
    assert "Bad Gateway" in str(error)
    assert "<html>" not in str(error)
    assert len(captioned) == 20
    assert not failed
    assert IN_A_ROW <= len([number for number in server.asked if number >= 20]) <= IN_A_ROW + 2


def test_fewer_in_a_row_are_failures_of_their_images(numbered_images, open_endpoint):
    def reply(question):
        if question.number % IN_A_ROW:
            question.answer(500, {"error": {"message": "CUDA out of memory"}})
        else:
            name(question)

    with EndpointServer(reply) as server:
        backend = open_endpoint(server.url, concurrency=1)
        captioned, failed = results(backend.caption(numbered_images(IN_A_ROW * 3)))
        assert len(captioned) == 3
        assert len(failed) == 3 * (IN_A_ROW - 1)
        assert failed["1.png"].reason == "endpoint_error"
        assert failed["1.png"].detail == "1.png: the server answers 500: CUDA out of memory."
        # The last seven and the next shard's first make eight.
        error, _, _ = trouble(backend.caption(numbered_images(IN_A_ROW * 3)[1:3]))
    assert "3 captions of this run are kept" in str(error)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("shown", [KEY, f"{KEY[:9]}*****{KEY[-4:]}", f"<b>{KEY}</b>" * 40])
def test_a_wrong_key_ends_the_run_and_is_told_to_nobody(
    numbered_images, open_endpoint, monkeypatch, caplog, status, shown
):
    monkeypatch.setenv("A_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    answer = {"error": {"message": f"Incorrect API key provided: {shown}."}}
    with EndpointServer(lambda question: question.answer(status, answer)) as server:
        backend = open_endpoint(server.url, api_key_env="A_KEY")
        error, captioned, failed = trouble(backend.caption(numbered_images(20)))
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "Incorrect API key provided: " in str(error)
    assert 'put a key that may use "tiny-llava" into the variable A_KEY' in str(error)
    told = "".join(traceback.format_exception(error)) + repr(backend) + repr(vars(backend)) + caplog.text
    assert KEY[:9] not in told
    assert not captioned
    assert not failed


@pytest.mark.parametrize("key", [KEY, "short", 'with "quotes"'])
def test_a_key_that_an_image_s_failure_would_show_is_struck_out(numbered_images, open_endpoint, monkeypatch, key):
    monkeypatch.setenv("A_KEY", key)
    replies = {
        0: (400, {"detail": key}),
        1: (200, json.dumps(key).encode()),
        2: (500, {"message": key}),
        3: (200, completion("A")),
    }
    with EndpointServer(lambda question: question.answer(*replies[question.number])) as server:
        _, failed = results(open_endpoint(server.url, api_key_env="A_KEY").caption(numbered_images(4)))
    assert [failed[f"{number}.png"].reason for number in range(3)] == [
        "endpoint_refused",
        "endpoint_garbage",
        "endpoint_error",
    ]
    assert all("[key]" in failure.detail and key not in failure.detail for failure in failed.values())


@pytest.mark.parametrize(("value", "words"), [(None, "is not set"), ("", "is not set"), ("sk\n-1", "characters")])
def test_a_key_that_is_missing_or_cannot_be_one_is_said_at_once(open_endpoint, monkeypatch, value, words):
    monkeypatch.delenv("A_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("A_KEY", value)
    with pytest.raises(CaptionerError, match=f"environment variable A_KEY .*{words}"):
        open_endpoint("http://127.0.0.1:9/v1", api_key_env="A_KEY")


def test_an_unknown_model_ends_the_run_and_the_known_are_listed(numbered_images, open_endpoint):
    answer = {"object": "error", "message": "The model `llava` does not exist."}
    with EndpointServer(lambda question: question.answer(404, answer)) as server:
        error, _, _ = trouble(open_endpoint(server.url, model="llava").caption(numbered_images(3)))
    assert "The model `llava` does not exist" in str(error)
    assert 'correct the captioner\'s `url` or its `model`, "llava"; it has: tiny-llava, tiny-otter.' in str(error)


def test_a_redirect_is_not_followed(numbered_images, open_endpoint, monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    with EndpointServer(name) as other:
        elsewhere = f"{other.url}/chat/completions"
        with EndpointServer(lambda question: question.answer(307, b"", Location=elsewhere)) as server:
            error, _, _ = trouble(open_endpoint(server.url, api_key_env="A_KEY").caption(numbered_images(2)))
    assert f"moved to {elsewhere}" in str(error)
    assert not other.headers


def test_nobody_at_the_url_is_said_at_once(open_endpoint):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        started = time.monotonic()
        with pytest.raises(CaptionerError, match=r"nothing answers there \(.*refused\); start the server"):
            open_endpoint(url, retries=5)
    assert time.monotonic() - started < 5
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # Its queue is full: whoever connects now waits.
        waiting = socket.create_connection(full.getsockname())
        with pytest.raises(CaptionerError, match=r"nothing answers there \(.*timed out"):
            open_endpoint(f"http://127.0.0.1:{full.getsockname()[1]}/v1", timeout=0.3)
        waiting.close()
    with pytest.raises(CaptionerError, match=r"no\.\.such"):
        open_endpoint("http://no..such/v1")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_image_that_the_server_refuses_fails_alone(numbered_images, open_endpoint, status):
    def reply(question):
        if question.number == 3:
            question.answer(status, {"error": {"message": "image\n  too   small" * 200}})
        else:
            name(question)

    with EndpointServer(reply) as server:
        captioned, failed = results(open_endpoint(server.url, concurrency=4).caption(numbered_images(12)))
    assert len(captioned) == 11
    assert failed["3.png"].reason == "endpoint_refused"
    assert failed["3.png"].detail.startswith(f"3.png: the server answers {status}: image too small")
    assert len(failed["3.png"].detail) < 400


def test_a_server_that_refuses_even_a_plain_image_ends_the_run(numbered_images, open_endpoint):
    answer = {"detail": "tiny-llava is not a multimodal model"}
    with EndpointServer(lambda question: question.answer(400, answer)) as server:
        error, captioned, failed = trouble(open_endpoint(server.url, concurrency=2).caption(numbered_images(40)))
    assert "is not a multimodal model, even to a plain grey image; correct" in str(error)
    assert not captioned
    assert not failed


def test_images_that_are_all_refused_by_a_server_that_takes_others_are_all_failures(numbered_images, open_endpoint):
    def reply(question):
        if question.image.size == (8, 8):
            question.answer(400, {"detail": "too small"})
        else:
            name(question)

    with EndpointServer(reply) as server:
        _, failed = results(open_endpoint(server.url, concurrency=2).caption(numbered_images(40)))
    assert {failure.reason for failure in failed.values()} == {"endpoint_refused"}
    assert len(failed) == 40
