"""Texts that are read as they grow, so that they can be left where the shears end."""

import json
import time

import pytest
from endpoint_server import EndpointServer, chunk, completion, results, wait_until

from caploom.shearing.apply import shear_span
from caploom.shearing.settings import ShearStep

FIRST = [ShearStep.model_validate("first_sentence")]
WORDS = "A red square lies on the floor. It is said to hide a dragon that nobody ever saw.".split(" ")


def sheared(text):
    start, end = shear_span(text, FIRST)
    return text[start:end]


def test_a_stream_is_left_once_no_shear_needs_more_of_it(numbered_images, open_endpoint):
    sent = {}

    def reply(question):
        assert question.body["stream"] is True
        send = question.begin_stream()
        sent[question.number] = 0
        for number, word in enumerate(WORDS):
            time.sleep(0.02)
            send(chunk(f" {word}" if number else word))
            sent[question.number] += 1
        send(chunk("", finish_reason="stop"))
        send(b"data: [DONE]\n\n")
        sent["whole"] = True

    with EndpointServer(reply) as server:
        captioned, failed = results(open_endpoint(server.url, [FIRST]).caption(numbered_images(4)))
        assert wait_until(lambda: server.in_flight == 0)
    assert not failed
    assert {generation.finish_reason for generation in captioned.values()} == {"shear"}
    assert {sheared(generation.text) for generation in captioned.values()} == {sheared(" ".join(WORDS))}
    assert "whole" not in sent
    assert max(sent.values()) < len(WORDS)


def test_a_stream_that_ends_by_itself_is_read_with_its_usage(numbered_images, open_endpoint):
    def reply(question):
        assert question.body["stream_options"] == {"include_usage": True}
        send = question.begin_stream()
        send(chunk("A red squ"))
        send(b": still here\n\n")
        send(chunk("are", finish_reason="length"))
        send(b'data: {"choices": [], "usage": {"completion_tokens": 4}}\n\ndata: [DONE]\n\n')

    with EndpointServer(reply) as server:
        captioned, _ = results(open_endpoint(server.url, [FIRST]).caption(numbered_images(1)))
    generation = captioned["0.png"]
    assert (generation.text, generation.tokens, generation.finish_reason) == ("A red square", 4, "length")


def test_a_stream_that_breaks_off_is_begun_again(numbered_images, open_endpoint):
    def reply(question):
        if question.attempt == 1:
            question.handler.send_response(200)
            question.handler.send_header("Content-Type", "text/event-stream")
            question.handler.send_header("Content-Length", "10000")
            question.handler.end_headers()
            question.handler.wfile.write(chunk("A broken "))
            question.handler.close_connection = True
        else:
            send = question.begin_stream()
            send(chunk("A whole one.", finish_reason="stop"))

    with EndpointServer(reply) as server:
        captioned, _ = results(open_endpoint(server.url, [FIRST], retries=1).caption(numbered_images(1)))
        assert captioned["0.png"].text == "A whole one."
        server.asked.clear()
        _, failed = results(open_endpoint(server.url, [FIRST], retries=0).caption(numbered_images(1)))
    assert failed["0.png"].reason == "endpoint_error"
    assert "the answer broke off (" in failed["0.png"].detail


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([b"<html>"], "endpoint_garbage"),
        ([b"data: {\n\n"], "endpoint_garbage"),
        ([b'data: {"choices": ["no"]}\n\n'], "endpoint_garbage"),
        ([b"data: [1, 2]\n\n"], "endpoint_garbage"),
        ([json.dumps(completion("whole")).encode()], "endpoint_garbage"),
        ([b'data: {"error": {"message": "the engine died"}}\n\n'], "endpoint_error"),
        ([chunk("")], "empty_caption"),
        ([chunk("A "), 0.3, chunk("text "), 0.3, chunk("drips")], "endpoint_timeout"),
        ([chunk("A "), 0.8, chunk("text")], "endpoint_timeout"),
    ],
    ids=["html", "half", "no choice", "a list", "not streamed", "error", "nothing", "drips", "hangs"],
)
def test_a_stream_that_is_no_answer_is_a_failure(numbered_images, open_endpoint, pieces, reason):
    def reply(question):
        send = question.begin_stream()
        for piece in pieces:
            time.sleep(piece) if isinstance(piece, float) else send(piece)

    with EndpointServer(reply) as server:
        captioned, failed = results(open_endpoint(server.url, [FIRST], timeout=0.5).caption(numbered_images(1)))
    assert not captioned
    assert failed["0.png"].reason == reason
