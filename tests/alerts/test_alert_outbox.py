import logging
import multiprocessing

import pytest
from filelock import FileLock
from receivers import alert, endpoint

from caploom.alerts.inbox import record_inbox_faults
from caploom.alerts.outbox import FILE, alert_once, deliver_waiting, remember
from caploom.config.alerts import AlertKind, AlertSettings
from caploom.errors import StoreError

LOG_ONLY = AlertSettings()


def with_webhook(**changes):
    return AlertSettings.model_validate({"webhook": {"retries": 0}, **changes})


def test_what_was_said_under_a_key_is_not_said_again(tmp_path, caplog):
    for _ in range(3):
        alert_once(tmp_path, "inbox gone", alert(1), LOG_ONLY)
    alert_once(tmp_path, "another", alert(2), LOG_ONLY)
    assert [message.split(" | ")[1] for message in caplog.messages] == [alert(1).sentence, alert(2).sentence]


def test_kinds_that_nobody_asked_for_and_factories_without_channels_stay_silent(tmp_path, caplog):
    silent = [AlertSettings(on=[AlertKind.FRESHNESS]), AlertSettings(log=False)]
    assert [alert_once(tmp_path, "key", alert(), settings) for settings in silent] == [[], []]
    assert caplog.messages == []
    assert not (tmp_path / FILE).exists()


def test_a_webhook_that_is_down_gets_it_later_and_the_log_has_it_once(tmp_path, monkeypatch, caplog):
    with endpoint(500, 500, 200) as found:
        monkeypatch.setenv("CAPLOOM_ALERT_WEBHOOK", found.url)
        said = [alert_once(tmp_path, "key", alert(), with_webhook())]
        said += [deliver_waiting(tmp_path, with_webhook()) for _ in range(4)]
    assert [[(each.channel, each.fault is None) for each in one] for one in said] == [
        [("log", True), ("webhook", False)],
        [("webhook", False)],
        [("webhook", True)],
        [],
        [],
    ]
    assert len(found.requests) == 3
    assert len(caplog.messages) == 1


def test_a_channel_that_stays_down_is_given_up_with_a_line_in_the_log(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CAPLOOM_ALERT_WEBHOOK", "http://127.0.0.1:1/very-secret")
    settings = with_webhook(attempts=3, log=False)
    remember(tmp_path, {"one": alert(1), "two": alert(2)}, settings)
    said = [deliver_waiting(tmp_path, settings) for _ in range(5)]
    assert [len(each) for each in said] == [1, 1, 1, 0, 0]
    (line,) = caplog.messages
    assert line.startswith("2 alerts are dropped on the channel webhook after 3 attempts")
    assert "secret" not in line


def test_what_waits_goes_out_as_one_message_with_what_came_since(tmp_path, monkeypatch):
    with endpoint(500, 200) as found:
        monkeypatch.setenv("CAPLOOM_ALERT_WEBHOOK", found.url)
        settings = with_webhook(log=False)
        alert_once(tmp_path, "one", alert(1), settings)
        alert_once(tmp_path, "two", alert(2), settings)
    assert b"2 alerts" in found.requests[1][2]


def test_only_one_process_sends(tmp_path, caplog):
    remember(tmp_path, {"key": alert()}, LOG_ONLY)
    with FileLock(tmp_path / f".{FILE}.lock"):
        assert deliver_waiting(tmp_path, LOG_ONLY) == []
    assert caplog.messages == []
    assert len(deliver_waiting(tmp_path, LOG_ONLY)) == 1


def _say(folder, first):
    logging.disable()
    for number in range(first, first + 10):
        alert_once(folder, f"key {number % 15}", alert(number), LOG_ONLY)


def test_processes_at_once_put_each_key_down_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_say, args=(tmp_path, first)) for first in (0, 5, 10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    known = {f"key {number}": alert(number) for number in range(16)}
    assert remember(tmp_path, known, LOG_ONLY) == 1


def test_an_alert_comes_out_as_it_was_put_down(tmp_path, caplog):
    odd = alert(partition=None, asset=None, url=None, run_id=None, sentence="ein Bild “猫” \ud800")
    remember(tmp_path, {"key": odd}, LOG_ONLY)
    deliver_waiting(tmp_path, LOG_ONLY)
    assert caplog.messages == ["the run ingest 1 failed | ein Bild “猫”"]


def test_a_store_that_cannot_be_written_is_said_in_a_sentence(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database, but something long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="alerts cannot be stored there"):
        alert_once(tmp_path, "key", alert(), LOG_ONLY)


def test_a_fault_of_the_inbox_is_told_each_time_it_is_news_and_a_lasting_one_once(write_source, make_factory, caplog):
    factory = make_factory(write_source(1))
    for again in (True, True, False, False):
        record_inbox_faults(factory, ["/in: this folder cannot be read; mount it again."], again=again)
    record_inbox_faults(factory, [])
    deliver_waiting(factory.store.root, factory.config.alerts)
    assert len(caplog.messages) == 3
    assert caplog.messages[0] == (
        "the inbox needs attention (raw_pairs) | /in: this folder cannot be read; mount it again."
    )
