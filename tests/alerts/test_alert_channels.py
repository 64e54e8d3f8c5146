import json
import logging
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from receivers import alert, endpoint, mail_server
from small_factory import settings_of

from caploom.alerts import webhook
from caploom.alerts.alert import lines_of, plain, subject_of, text_of, ui_page
from caploom.alerts.deliver import deliver
from caploom.config.alerts import AlertSettings
from caploom.config.factory_config import parse_config
from caploom.config.freshness import FreshnessSettings
from caploom.errors import ConfigError

HOSTILE = "a cat\r\nBcc: everybody@example.com\x00\x1b[31m\u202e\ud800<!channel> @all <b>"


def to_webhook(**changes):
    return AlertSettings.model_validate({"log": False, "webhook": {"retries": 0, **changes}})


def to_mail(port, **changes):
    email = {"to": ["a@example.com"], "sender": "c@example.com", "host": "127.0.0.1", "port": port, "starttls": False}
    return AlertSettings.model_validate({"log": False, "email": {**email, **changes}})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(webhook, "_PAUSE_SECONDS", 0.01)
    for variable in ("CAPLOOM_ALERT_WEBHOOK", "CAPLOOM_UI_URL", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)


def test_a_webhook_gets_every_field_and_the_token(monkeypatch):
    with endpoint() as found:
        monkeypatch.setenv("CAPLOOM_ALERT_WEBHOOK", found.url)
        monkeypatch.setenv("TOKEN", "t0ken")
        (delivery,) = deliver([alert(1), alert(2)], to_webhook(token_from_env="TOKEN"))
    assert delivery.fault is None
    ((path, headers, body),) = found.requests
    assert path == "/services/T0/very-secret"
    assert headers["Authorization"] == "Bearer t0ken"
    sent = json.loads(body)
    assert sent["text"] == "Caploom demo: 2 alerts, the first: the run ingest 1 failed"
    assert sent["more"] == 0
    assert [each["partition"] for each in sent["alerts"]] == ["shard-00001", "shard-00002"]
    assert sent["alerts"][0] == {**alert(1).fields(), "kind": "run_failure"}


def test_slack_shows_hostile_names_as_text_and_calls_nobody(monkeypatch):
    with endpoint() as found:
        monkeypatch.setenv("CAPLOOM_ALERT_WEBHOOK", found.url)
        deliver([alert(sentence=HOSTILE)], to_webhook(format="slack"))
    text = json.loads(found.requests[0][2])["text"]
    assert "&lt;!channel&gt;" in text
    assert "@all" not in text and "<" not in text
    assert text.splitlines()[0] == "Caploom demo: the run ingest 1 failed"


def test_many_alerts_are_one_message_that_lists_twenty(monkeypatch):
    alerts = [alert(number) for number in range(33)]
    with endpoint() as found:
        monkeypatch.setenv("CAPLOOM_ALERT_WEBHOOK", found.url)
        deliver(alerts, to_webhook())
    sent = json.loads(found.requests[0][2])
    assert (len(found.requests), len(sent["alerts"]), sent["more"]) == (1, 20, 13)
    assert text_of(alerts).endswith("And 13 more.")


@pytest.mark.parametrize(
    ("answers", "retries", "asked", "fault"),
    [
        ([500, 200], 1, 2, None),
        ([503, 429, 200], 2, 3, None),
        ([500], 1, 2, "The webhook answered 500."),
        ([404], 3, 1, "The webhook answered 404."),
        ([302], 1, 1, "The webhook answered 302."),
    ],
)
def test_what_may_pass_is_tried_again_at_once_and_nothing_is_followed(monkeypatch, answers, retries, asked, fault):
    with endpoint(*answers) as found:
        monkeypatch.setenv("CAPLOOM_ALERT_WEBHOOK", found.url)
        (delivery,) = deliver([alert()], to_webhook(retries=retries))
    assert delivery.fault == fault
    assert len(found.requests) == asked


def test_a_webhook_that_hangs_is_not_waited_for(monkeypatch):
    with endpoint(slow_seconds=0.6) as found:
        monkeypatch.setenv("CAPLOOM_ALERT_WEBHOOK", found.url)
        (delivery,) = deliver([alert()], to_webhook(timeout_seconds=0.1))
    assert delivery.fault == "The webhook did not answer in time."


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        (None, "The environment variable CAPLOOM_ALERT_WEBHOOK is not set where the daemon's code server runs."),
        ("file:///etc/very-secret", "The variable CAPLOOM_ALERT_WEBHOOK is not an http or https address."),
        ("http://[very-secret", "The variable CAPLOOM_ALERT_WEBHOOK is not an http or https address."),
        ("http://x/very secret\n", "The variable CAPLOOM_ALERT_WEBHOOK is not an http or https address."),
        ("http://very-secret.invalid:99999999/a", None),
        ("http://127.0.0.1:1/very-secret", "The webhook cannot be reached (ConnectionRefusedError)."),
    ],
)
def test_the_secret_address_is_in_no_fault_and_no_log(monkeypatch, caplog, url, fault):
    caplog.set_level(logging.DEBUG)
    if url is not None:
        monkeypatch.setenv("CAPLOOM_ALERT_WEBHOOK", url)
    (delivery,) = deliver([alert()], to_webhook(retries=1))
    assert delivery.fault is not None
    assert fault in (None, delivery.fault)
    assert "secret" not in delivery.fault + caplog.text


def test_a_mail_is_one_text_for_all_and_its_subject_holds_no_other_header():
    with mail_server() as (port, mails):
        (delivery,) = deliver([alert(title=HOSTILE), alert(2)], to_mail(port, to=["a@example.com", "b@example.com"]))
    assert delivery.fault is None
    ((to, mail),) = mails
    assert to == ["a@example.com", "b@example.com"]
    assert mail["Bcc"] is None
    assert mail["Subject"].startswith("Caploom demo: 2 alerts, the first: a cat Bcc: everybody@example.com [31m")
    assert "http://ui.example/runs/run-2" in mail.get_content()


def test_a_mail_server_that_refuses_or_is_gone_or_cannot_encrypt_is_said():
    with mail_server(refuse="554 no thanks to very-secret") as (port, _):
        (refused,) = deliver([alert()], to_mail(port))
        (plain_only,) = deliver([alert()], to_mail(port, starttls=True))
    (gone,) = deliver([alert()], to_mail(port))
    assert refused.fault == "The mail server refused the mail (554)."
    assert plain_only.fault == "The mail server offers no STARTTLS, or no login: see `starttls`."
    assert gone.fault == "The mail server cannot be reached (ConnectionRefusedError)."


def test_a_fault_of_one_channel_stops_no_other(monkeypatch, caplog):
    monkeypatch.setenv("CAPLOOM_ALERT_WEBHOOK", "http://127.0.0.1:1/")
    with mail_server() as (port, mails):
        settings = to_mail(port).model_copy(update={"log": True, "webhook": to_webhook().webhook})
        found = deliver([alert()], settings)
    assert [each.channel for each in found if each.fault is None] == ["log", "email"]
    assert len(mails) == 1
    assert caplog.messages == [" | ".join(lines_of(alert()))]


def test_texts_are_plain_and_bounded():
    assert plain(HOSTILE) == "a cat Bcc: everybody@example.com [31m <!channel> @all <b>"
    assert len(plain("x" * 10_000)) == 600
    assert "\n" not in subject_of([alert(title="a\nb" * 500)])
    assert len(lines_of(alert(sentence="w " * 5_000))[1]) == 600


def test_links_lead_to_the_ui_where_it_is_known(monkeypatch):
    assert ui_page(AlertSettings(), run_id="a") is None
    monkeypatch.setenv("CAPLOOM_UI_URL", "https://ui.example/")
    assert ui_page(AlertSettings(), run_id="a/b") == "https://ui.example/runs/a%2Fb"
    assert ui_page(AlertSettings(ui_url="http://own/"), asset="captions/x y") == "http://own/assets/captions/x%20y"
    monkeypatch.setenv("CAPLOOM_UI_URL", "javascript:alert(1)")
    assert ui_page(AlertSettings(), run_id="a") is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"webhook": {"url_from_env": "https://hooks.example/x"}}, "name of an environment variable"),
        ({"webhook": {"url": "https://hooks.example/x"}}, "url"),
        ({"email": {"to": ["a\nb@x.org"], "sender": "c@x.org", "host": "h"}}, "not a mail address"),
        ({"email": {"to": [], "sender": "c@x.org", "host": "h"}}, "to"),
        ({"on": ["weather"]}, "on"),
        ({"ui_url": "ui.example"}, "begin with http"),
        (
            {
                "email": {
                    "to": ["a@x.org"],
                    "sender": "c@x.org",
                    "host": "h",
                    "starttls": False,
                    "user_from_env": "U",
                    "password_from_env": "P",
                }
            },
            "encrypted",
        ),
    ],
)
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(ValidationError, match=told):
        AlertSettings.model_validate(settings)


def test_yaml_that_reads_on_as_true_and_off_as_false_is_understood():
    assert AlertSettings.model_validate({True: ["freshness"]}).on == ["freshness"]
    assert AlertSettings.model_validate(False).channels == []


def test_a_secret_that_stands_in_the_yaml_by_mistake_is_not_repeated():
    settings = {**settings_of(Path("source")), "alerts": {"webhook": {"url_from_env": "https://hooks.example/s3cret"}}}
    with pytest.raises(ConfigError) as error:
        parse_config(settings, base=Path(), source="factory.yaml")
    assert str(error.value).startswith("factory.yaml: alerts.webhook.url_from_env: write the name of an environment")
    assert "s3cret" not in str(error.value)


def test_the_page_s_yaml_is_valid():
    text = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    said = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert AlertSettings.model_validate(said["alerts"]).channels == ["log", "webhook", "email"]
    assert FreshnessSettings.model_validate(said["freshness"]).training_set.warn == timedelta(days=5)


@pytest.mark.parametrize(
    ("spans", "told"),
    [
        ({"raw_pairs": "1 day"}, "is not a span of time"),
        ({"raw_pairs": "0d"}, "too short"),
        ({"raw_pairs": {"warn": "3d", "fail": "1d"}}, "is not before fail"),
        ({"raw_pair": "1d"}, "raw_pair"),
    ],
)
def test_wrong_spans_are_refused(spans, told):
    with pytest.raises(ValidationError, match=told):
        FreshnessSettings.model_validate(spans)


def test_a_port_that_nobody_listens_on_is_free():
    # The tests above say "refused" of port 1: that must be what this machine says.
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 1)) != 0
