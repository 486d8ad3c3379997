"""What goes on while the database or the broker is away, and what tokens come to: usage, quotas, rates."""

import threading
from contextlib import ExitStack

import httpx
import openai
import pytest

from db.ids import checkpoint_name, live_name, new_id
from db.tenant import keys, served
from db.tenant.served import Answered
from tests.api.chat.conftest import HI, counted
from tests.api.chat.wire import WORDS, chunk, parts
from tests.api.conftest import MODEL, client, serving
from tests.db import sent
from tests.ports import free_port
from tests.waiting import HANG, until

TEXT = "".join(WORDS)


def say(who, **fields):
    return who.openai.chat.completions.create(model=MODEL, messages=HI, **fields)


@pytest.fixture
def opened(chats, factory):
    """APIs with settings of their own."""
    with ExitStack() as last:
        yield lambda **changes: last.enter_context(serving(chats.model_copy(update=changes)))


def test_chats_go_on_while_postgres_is_away_and_are_counted_later(servers, factory, url, train, worker):
    known, unknown = client(factory, url, "known"), client(factory, url, "unknown")
    job, name = train(known, "running", 3)
    spoken, go_on = threading.Event(), threading.Event()

    def in_two_parts(handler, seen):
        handler.begin()
        handler.event(chunk(seen, "before "))
        spoken.set()
        assert go_on.wait(HANG)
        for part in parts(seen):
            handler.event(part)
        handler.done()

    worker.act = lambda handler, seen: in_two_parts(handler, seen) if seen.body.get("seed") else handler.answer(seen)
    assert say(known).choices[0].message.content == TEXT
    ask = known.openai.chat.completions.create
    assert ask(model=live_name(name), messages=HI).model == checkpoint_name(name, 3)
    until(lambda: len(counted(factory, known)) == 2, "what was served is written")
    running = iter(say(known, stream=True, seed=1))
    assert next(running).choices[0].delta.content == "before "
    assert spoken.wait(HANG)
    servers.kill_postgres()
    try:
        go_on.set()
        assert "".join(c.choices[0].delta.content or "" for c in running if c.choices) == TEXT
        assert say(known).choices[0].message.content == TEXT
        assert ask(model=live_name(name), messages=HI).model == checkpoint_name(name, 3)
        assert worker.seen[-1].body["model"] == f"{job}@3"
        with pytest.raises(openai.InternalServerError) as away:
            say(unknown)
        assert (away.value.status_code, away.value.code) == (503, "unavailable")
        with pytest.raises(openai.InternalServerError) as new_name:
            ask(model=checkpoint_name(name, 1), messages=HI)
        assert new_name.value.status_code == 503
    finally:
        servers.restart_postgres()
    until(lambda: len(counted(factory, known)) == 5, "what was served meanwhile is written, once")
    with factory.begin() as session:
        assert sent.served_today(known.id, session) == 5 * 14
    until(lambda: _opens(unknown), "the key that was not known is known again")


def _opens(who):
    try:
        return say(who)
    except openai.InternalServerError:
        return None


def test_a_revoked_key_is_not_remembered(factory, url, worker):
    who = client(factory, url, "revoked")
    say(who)
    with factory.begin() as session:
        keys.revoke_key(session, keys.authenticate(session, who.secret).key)
    with pytest.raises(openai.AuthenticationError):
        say(who)


def test_chats_go_on_without_a_broker(opened, factory, fleet):
    fleet.add()
    url = opened(redis_url=f"redis://127.0.0.1:{free_port()}/0", requests_a_minute=1000, serve_tokens_a_minute=100_000)
    who = client(factory, url, new_id("t-"))
    assert say(who).choices[0].message.content == TEXT
    assert "".join(c.choices[0].delta.content or "" for c in say(who, stream=True) if c.choices) == TEXT


def test_tokens_a_minute(opened, factory, worker):
    url = opened(serve_tokens_a_minute=300)
    who = client(factory, url, new_id("t-"))
    raw = who.openai.chat.completions.with_raw_response.create(model=MODEL, messages=HI, max_completion_tokens=50)
    left = int(raw.headers["x-ratelimit-remaining-tokens"])
    assert raw.headers["x-ratelimit-limit-tokens"] == "300"
    assert 0 < left < 250

    def over():
        for _ in range(40):  # a minute may end meanwhile
            say(who, max_completion_tokens=50)

    with pytest.raises(openai.RateLimitError) as refused:
        over()
    assert refused.value.code == "rate_limit_exceeded"
    headers = refused.value.response.headers
    assert headers["x-ratelimit-remaining-tokens"] == "0"
    assert 1 <= int(headers["retry-after"]) <= 60
    assert "served tokens a minute" in refused.value.body["message"]


@pytest.mark.parametrize("limit", ["serve_quota", "daily_serve_tokens"])
def test_a_quota_of_served_tokens_is_its_own_and_not_repeated(factory, url, worker, limit):
    who = client(factory, url, new_id("t-"), **{limit: 100})
    say(who)
    until(lambda: counted(factory, who), "it is written")
    with factory.begin() as session:
        served.commit(who.id, session, [Answered("much", MODEL, 80, 0, 0)])
    asked = len(worker.seen)
    patient = who.openai.with_options(max_retries=2)
    with pytest.raises(openai.RateLimitError) as refused:
        patient.chat.completions.create(model=MODEL, messages=HI)
    error = refused.value
    assert (error.code, error.type, error.response.headers["x-should-retry"]) == (
        "insufficient_quota", "insufficient_quota", "false",
    )  # fmt: skip
    assert len(worker.seen) == asked
    assert who.openai.models.list().data, "what it may train and read is not used up"


def test_no_prompt_and_no_answer_is_in_a_log_or_the_database(factory, url, worker, capsys):
    who = client(factory, url, new_id("t-"))
    secret = "heliotrope-umbrella"
    answer = httpx.post(
        f"{url}/completions", json={"model": MODEL, "prompt": secret, "user": secret, "metadata": {"a": secret}},
        headers={"authorization": f"Bearer {who.secret}"}, timeout=HANG,
    )  # fmt: skip
    assert answer.status_code == 200
    until(lambda: counted(factory, who), "it is written")
    printed = capsys.readouterr()
    assert secret not in printed.out + printed.err
