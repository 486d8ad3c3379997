"""What is counted of chats: what came of each, who was asked again, and what waits to be written."""

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.chat.ledger import Ledger
from api.chat.stream import Voice
from db.tenant.served import Answered
from tests.api.chat.conftest import HI, counted
from tests.api.chat.wire import chunk
from tests.api.conftest import MODEL, Client
from tests.db.inserted import a_tenant
from tests.waiting import HANG, until


def samples(url):
    text = httpx.get(f"{url.removesuffix('/v1')}/metrics", timeout=HANG).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def outcomes(url, model=MODEL):
    found = samples(url)
    return {
        dict(labels)["outcome"]: int(value)
        for (name, labels), value in found.items()
        if name == "onward_chats_total" and dict(labels)["model"] == model
    }


def retries(url):
    return samples(url)["onward_chat_retries_total", ()]


def asked(who, model=MODEL, **more):
    answer = who.openai.chat.completions.create(model=model, messages=HI, **more)
    return list(answer) if more.get("stream") else answer


def grown(url, before, **more):
    """Wait for it: a stream is counted after its last byte."""
    wanted = before | {outcome: before[outcome] + by for outcome, by in more.items()}
    until(lambda: outcomes(url) == wanted, f"{before} becomes {wanted}")


@pytest.mark.parametrize("stream", [False, True])
def test_each_chat_is_counted_once_by_what_came_of_it(anna, fleet, url, stream):
    before = outcomes(url)
    assert set(before) == {"answered", "refused", "late", "drained", "failed", "overloaded", "no_worker"}
    plain = outcomes(url, "plain")
    with pytest.raises(openai.InternalServerError):
        asked(anna, stream=stream)
    with pytest.raises(openai.InternalServerError):
        asked(anna, "plain", stream=stream)
    with pytest.raises(openai.NotFoundError):  # of no base: not counted here
        asked(anna, "ft:nobody", stream=stream)
    assert outcomes(url, "plain") == plain | {"no_worker": plain["no_worker"] + 1}
    worker = fleet.add()
    asked(anna, stream=stream)
    refusals = [(400, "invalid_value"), (503, "overloaded"), (504, "deadline_exceeded"), (500, "internal_error")]
    for status, code in refusals:
        worker.act = lambda handler, _, status=status, code=code: handler.refuse(status, code, "no")
        with pytest.raises(openai.APIStatusError):
            asked(anna, stream=stream)
    grown(url, before, no_worker=1, answered=1, refused=1, overloaded=1, late=1, failed=1)


def test_a_stream_that_fails_in_its_middle_is_counted_by_why(anna, url, worker):
    def ends(code, kind="server_error"):
        def act(handler, seen):
            handler.begin()
            handler.event(chunk(seen, "one"))
            if code is not None:
                handler.event({"error": {"message": "no", "type": kind, "param": None, "code": code}})
            handler.ended()

        return act

    before = outcomes(url)
    theirs = ("reader_too_slow", "invalid_request_error")
    for why in ((None,), ("engine_failed",), ("draining",), ("deadline_exceeded",), theirs):
        worker.act = ends(*why)
        with pytest.raises(openai.APIError):
            asked(anna, stream=True)
    grown(url, before, failed=2, drained=1, late=1, refused=1)


def test_whoever_is_asked_next_is_a_retry_and_the_first_is_not(anna, fleet, url):
    before = retries(url)
    dead, alive = fleet.add(), fleet.add(queued_tokens=90)
    asked(anna)
    assert retries(url) == before
    dead.act = lambda handler, _: handler.die()
    counts = outcomes(url)
    asked(anna)
    assert (len(dead.seen), len(alive.seen)) == (2, 1)
    assert retries(url) == before + 1
    grown(url, counts, answered=1)


def test_no_error_is_counted_by_a_name_that_a_worker_makes_up():
    for said in ({"code": "x" * 999, "type": "y"}, {"code": 7, "type": None}, "what", None):
        voice = Voice("r", "ft:x", "base")
        voice.fail(said)
        assert voice.failed
        assert voice.outcome in ("failed", "refused")


def test_how_long_the_oldest_waits_is_told_until_it_is_written(factory, as_api, monkeypatch):
    with factory.begin() as session:
        tenant = a_tenant(session)
    ledger = Ledger(as_api, HANG)
    assert (ledger.unwritten, ledger.behind) == (0, 0.0)
    ledger.note(tenant, Answered("r0", "m", 2, 1, 3))
    since = ledger.behind
    ledger.note(tenant, Answered("r1", "m", 2, 1, 3))
    until(lambda: ledger.behind > since + 0.05, "time passes")
    assert ledger.unwritten == 2
    ledger._wake.set()
    until(lambda: not ledger.unwritten, "they are written")
    assert ledger.behind == 0.0
    assert len(counted(factory, Client(tenant, "", None))) == 2
    monkeypatch.setattr("api.chat.ledger.MOST", 1)
    slow = Ledger(as_api, HANG)
    for number in range(3):
        slow.note(tenant, Answered(f"s{number}", "m", 1, 0, 1))
    assert slow.unwritten == 1  # the oldest were given up
    slow.close()
    ledger.close()


def test_what_waits_is_on_the_metrics_page(anna, url, worker):
    asked(anna)
    found = until(lambda: (f := samples(url))[("onward_served_unwritten", ())] == 0 and f, "it is written")
    assert found[("onward_served_unwritten_seconds", ())] == 0
