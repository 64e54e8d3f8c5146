"""Several real servers with one model: how questions are shared out, and what becomes of them when servers die."""

import json
import threading
import time

import pytest
from endpoint_server import EndpointServer, name, results, wait_until
from pydantic import ValidationError

from caploom.captioning import endpoint_servers
from caploom.captioning.identity import captioner_fingerprint
from caploom.captioning.settings import EndpointCaptioner
from caploom.errors import CaptionerError

NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Pauses are as long as tests are."""
    monkeypatch.setattr(endpoint_servers, "_FIRST_PAUSE", 0.2)
    monkeypatch.setattr(endpoint_servers, "_SHORTEST_WAIT", 0.02)


def slowly(seconds):
    def reply(question):
        time.sleep(seconds)
        name(question)

    return reply


def everything(count):
    return {f"{number}.png": f"Picture {number}." for number in range(count)}


def texts(captioned):
    return {image: generation.text for image, generation in captioned.items()}


def test_the_faster_server_gets_more_and_every_caption_is_of_its_image(numbered_images, open_endpoint):
    with EndpointServer(slowly(0.01)) as fast, EndpointServer(slowly(0.15)) as slow:
        backend = open_endpoint([fast.url, slow.url], concurrency=6)
        captioned, failed = results(backend.caption(numbered_images(60)))
    assert texts(captioned) == everything(60)
    assert not failed
    assert fast.asked.total() > 2 * slow.asked.total() > 0
    assert slow.most_in_flight <= 4


def test_a_server_that_dies_half_way_loses_nothing(numbered_images, open_endpoint):
    with EndpointServer(slowly(0.02)) as lasting, EndpointServer(slowly(0.02)) as dying:
        backend = open_endpoint([dying.url, lasting.url], concurrency=4)
        killer = threading.Thread(target=lambda: (wait_until(lambda: dying.asked.total() >= 8), dying.die()))
        killer.start()
        captioned, failed = results(backend.caption(numbered_images(60)))
        killer.join()
    assert texts(captioned) == everything(60)
    assert not failed
    assert 8 <= dying.asked.total() < 30


def test_a_server_that_is_ill_for_a_while_is_left_out_and_comes_back(numbered_images, open_endpoint):
    ill = threading.Event()
    ill.set()

    def reply(question):
        if ill.is_set():
            question.answer(503, {"error": "loading"})
        else:
            name(question)

    def recover():
        wait_until(lambda: weak.asked.total() >= 2)
        time.sleep(0.3)
        ill.clear()

    with EndpointServer(slowly(0.03)) as strong, EndpointServer(reply) as weak:
        backend = open_endpoint([weak.url, strong.url], concurrency=2)
        doctor = threading.Thread(target=recover)
        doctor.start()
        captioned, failed = results(backend.caption(numbered_images(80)))
        doctor.join()
    assert texts(captioned) == everything(80)
    assert not failed
    assert weak.asked.total() > 10  # it works again; while it was ill it was asked a few times only
    assert sum(count > 1 for count in (strong.asked + weak.asked).values()) < 10


def test_a_server_that_is_not_there_yet_is_said_and_the_others_do_its_work(numbered_images, open_endpoint, caplog):
    with EndpointServer(name) as server:
        backend = open_endpoint([NOBODY, server.url])
        captioned, _ = results(backend.caption(numbered_images(10)))
    assert texts(captioned) == everything(10)
    assert f"{NOBODY}: nothing answers there" in caplog.text
    assert "The other servers do its work" in caplog.text


def test_when_none_is_there_it_is_said_at_the_start(open_endpoint):
    with pytest.raises(CaptionerError, match="nothing answers there"):
        open_endpoint([NOBODY, "http://127.0.0.1:19/v1"])


def test_when_all_die_the_run_ends_and_says_what_is_kept(numbered_images, open_endpoint):
    with EndpointServer(slowly(0.01)) as one, EndpointServer(slowly(0.01)) as other:
        backend = open_endpoint([one.url, other.url], concurrency=3)
        kept = []

        def kill():
            wait_until(lambda: one.asked.total() + other.asked.total() >= 12)
            one.die()
            other.die()

        threading.Thread(target=kill).start()
        with pytest.raises(CaptionerError, match="the endpoints do not answer any longer"):
            for each in backend.caption(numbered_images(200)):
                kept += [item.ref.image for item in each.captioned]
                assert not each.failed
    assert len(kept) == len(set(kept)) >= 9


def test_an_image_that_is_refused_is_not_asked_of_every_server(numbered_images, open_endpoint):
    def reply(question):
        if question.number == 3:
            question.answer(400, {"error": {"message": "not this one"}})
        else:
            name(question)

    with EndpointServer(reply) as one, EndpointServer(reply) as other:
        captioned, failed = results(open_endpoint([one.url, other.url], retries=3).caption(numbered_images(12)))
    assert len(captioned) == 11
    assert [failure.reason for failure in failed.values()] == ["endpoint_refused"]
    assert one.asked[3] + other.asked[3] == 1


def test_servers_with_different_models_are_refused(open_endpoint, monkeypatch):
    with EndpointServer(name) as one, EndpointServer(name, models=["tiny-otter"]) as other:
        with pytest.raises(CaptionerError) as caught:
            open_endpoint([one.url, other.url])
        assert str(caught.value) == (
            f'{other.url}: it does not have the model "tiny-llava", which {one.url} has; one captioner is one model: '
            "start it there or remove the address from `url`. It has: tiny-otter."
        )


def test_the_addresses_are_no_part_of_the_captioner():
    fields = {"backend": "openai", "model": "any", "prompt": "What is this?"}
    one = EndpointCaptioner.model_validate({**fields, "url": "http://a/v1"})
    many = EndpointCaptioner.model_validate({**fields, "url": ["http://b/v1", "http://c/v1"]})
    assert captioner_fingerprint(one) == captioner_fingerprint(many)
    assert (one.url, many.url) == (["http://a/v1"], ["http://b/v1", "http://c/v1"])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ([], "must have at least one, and no duplicates"),
        (["http://a/v1", "http://a/v1"], "must have at least one, and no duplicates"),
        (["http://a/v1", "ftp://b"], "must be an http"),
        (["http://me:secret@a/v1"], "without user or password"),
    ],
)
def test_addresses_that_cannot_be_are_refused(url, said):
    with pytest.raises(ValidationError, match=said) as caught:
        EndpointCaptioner.model_validate({"backend": "openai", "model": "any", "prompt": "What?", "url": url})
    assert "secret" not in json.dumps([each["msg"] for each in caught.value.errors()])
