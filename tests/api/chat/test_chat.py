"""Answers and streams through the unmodified client: whole, exact in their name, counted once."""

import json
import threading

import httpx
import openai
import pytest
from sqlalchemy import select

from db.ids import checkpoint_name, live_name
from db.tables import ServedDay
from tests.api.chat.conftest import HI, counted, of, published
from tests.api.chat.wire import SECRET, USAGE, WORDS, chunk
from tests.api.conftest import MODEL, client, serving
from tests.db import sent
from tests.waiting import HANG, until

TEXT = "".join(WORDS)


def test_an_answer_is_whole_and_ours(anna, worker):
    answer = anna.openai.chat.completions.create(model=MODEL, messages=HI)
    assert (answer.model, answer.choices[0].message.content) == (MODEL, TEXT)
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage.prompt_tokens_details.cached_tokens == 4
    (seen,) = worker.seen
    assert (seen.path, seen.body["model"]) == ("/v1/chat/completions", "base")
    assert seen.body["messages"] == HI
    assert seen.headers["x-onward-request"] == answer.id
    assert float(seen.headers["x-onward-deadline"]) > 0
    assert float(seen.headers["x-onward-share"]) == 1.0


def test_a_completion_is_too(anna, worker):
    answer = anna.openai.completions.create(model=MODEL, prompt="the film", max_tokens=3)
    assert (answer.model, answer.choices[0].text, answer.id[:5]) == (MODEL, TEXT, "cmpl-")
    assert worker.seen[0].body == {"model": "base", "prompt": "the film", "max_tokens": 3}
    for prompt in ([1, 2, 3], ["a film", "the film"], [[1, 2], [3]]):
        anna.openai.completions.create(model=MODEL, prompt=prompt)
        assert worker.seen[-1].body["prompt"] == prompt


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_is_passed_on_as_it_comes(anna, worker, usage):
    options = {"stream_options": {"include_usage": True}} if usage else {}
    stream = anna.openai.chat.completions.create(model=MODEL, messages=HI, stream=True, **options)
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert {c.model for c in chunks} == {MODEL}
    assert len({c.id for c in chunks}) == 1
    assert [c.usage.completion_tokens for c in chunks if c.usage] == ([3] if usage else [])
    assert worker.seen[0].body["stream_options"] == {"include_usage": True}


def test_each_part_comes_when_it_is_said(anna, worker):
    """The worker says the next word only once the client has the one before."""
    heard = [threading.Event() for _ in WORDS]

    def slowly(handler, seen):
        handler.begin()
        for i, word in enumerate(WORDS):
            assert not i or heard[i - 1].wait(HANG)
            handler.event(chunk(seen, word))
        handler.done()

    worker.act = slowly
    got = []
    for part in anna.openai.chat.completions.create(model=MODEL, messages=HI, stream=True):
        got.append(part.choices[0].delta.content)
        heard[len(got) - 1].set()
    assert tuple(got) == WORDS


def test_what_is_said_goes_to_the_worker_and_what_is_ours_does_not(anna, worker):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    fields = {
        "temperature": 0.5, "top_p": 0.9, "n": 2, "stop": ["x", "y"], "seed": -7, "logprobs": True, "top_logprobs": 20,
        "presence_penalty": -1, "frequency_penalty": 1, "logit_bias": {"5": -100}, "max_completion_tokens": 9,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}},
    }  # fmt: skip
    anna.openai.chat.completions.create(model=MODEL, messages=HI, user="me", metadata={"a": "b"}, **fields)
    assert worker.seen[0].body == fields | {"model": "base", "messages": HI}
    assert "user" not in worker.seen[0].body


def test_messages_are_read_as_training_reads_them(anna, worker):
    said = [
        {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello", "refusal": None, "tool_calls": None, "audio": None},
        {"role": "user", "content": "again"},
    ]
    anna.openai.chat.completions.create(model=MODEL, messages=said)
    assert worker.seen[0].body["messages"] == [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"}, {"role": "user", "content": "again"},
    ]  # fmt: skip


def test_tenants_have_salts_that_tell_nothing_and_are_their_own(anna, ben, worker):
    for who in (anna, ben, anna):
        who.openai.chat.completions.create(model=MODEL, messages=HI)
    first, second, third = (seen.headers["x-onward-salt"] for seen in worker.seen)
    assert first == third != second
    assert len(first) == 64
    for seen in worker.seen:
        sent = json.dumps([seen.headers, seen.body])
        assert anna.id not in sent
        assert ben.id not in sent
        assert anna.secret not in sent
        assert seen.headers["authorization"] == f"Bearer {SECRET}"


def test_names_and_what_the_worker_is_told_of_them(anna, factory, train, worker):
    done, name = train(anna, "succeeded")
    published(factory, anna, done, name, 7)
    ask = anna.openai.chat.completions
    assert ask.create(model=name, messages=HI).model == name
    assert worker.seen[-1].body["model"] == f"{done}@7"
    step = checkpoint_name(name, 3)
    assert ask.create(model=step, messages=HI).model == step
    assert worker.seen[-1].body["model"] == f"{done}@3"
    running, other = train(anna, "running", 4)
    answer = ask.create(model=live_name(other), messages=HI)
    assert answer.model == checkpoint_name(other, 4)
    assert worker.seen[-1].body["model"] == f"{running}@4"
    assert ask.create(model=answer.model, messages=HI).model == answer.model
    assert worker.seen[-1].body["model"] == f"{running}@4"
    assert anna.openai.fine_tuning.jobs.retrieve(running).model_extra["onward"]["live_model"] == live_name(other)
    assert anna.openai.fine_tuning.jobs.retrieve(done).model_extra["onward"]["live_model"] is None


def test_live_is_the_newest_committed_step_at_each_arrival(anna, factory, train, worker):
    job, name = train(anna, "running", 1)
    asked = []
    for step in (1, 2, 5):
        with factory.begin() as session:
            session.merge(of(factory, job)).step = step
        parts = anna.openai.chat.completions.create(model=live_name(name), messages=HI, stream=True)
        asked.append({part.model for part in parts})
    assert asked == [{checkpoint_name(name, step)} for step in (1, 2, 5)]


def test_tokens_are_counted_once_a_request_however_it_is_repeated(eva, factory, worker):
    """A caller's own x-request-id does not make two requests one."""
    headers = {"X-Request-ID": "always-the-same"}
    eva.openai.chat.completions.create(model=MODEL, messages=HI, extra_headers=headers)
    list(eva.openai.chat.completions.create(model=MODEL, messages=HI, stream=True, extra_headers=headers))
    until(lambda: len(counted(factory, eva)) == 2, "both are written")
    assert set(counted(factory, eva)) == {(11, 4, 3)}
    with factory.begin() as session:
        day = session.execute(select(ServedDay).where(ServedDay.tenant_id == eva.id)).scalar_one()
        assert (day.prompt, day.cached, day.completion) == (22, 8, 6)
        assert sent.served_today(eva.id, session) == 2 * (USAGE["prompt_tokens"] + USAGE["completion_tokens"])


def test_connections_to_a_worker_are_kept(anna, worker):
    for _ in range(5):
        anna.openai.chat.completions.create(model=MODEL, messages=HI)
        list(anna.openai.chat.completions.create(model=MODEL, messages=HI, stream=True))
    assert len(worker.seen) == 10
    assert worker.connections <= 2


def test_models_are_listed_as_before(anna, url):
    assert MODEL in [m.id for m in anna.openai.models.list()]
    assert httpx.get(f"{url}/chat/completions", timeout=HANG).status_code in (401, 405)


def test_an_installation_without_a_secret_says_so(settings, factory):
    with serving(settings) as plain:
        who = client(factory, plain, "nobody-serves")
        with pytest.raises(openai.APIStatusError) as refused:
            who.openai.chat.completions.create(model=MODEL, messages=HI)
    assert (refused.value.status_code, refused.value.code) == (503, "no_worker")
