"""Workers that refuse, die, freeze and say too much, and clients that leave: what the other side then sees."""

import json
import socket
import threading
import time

import httpx
import openai
import pytest
from sqlalchemy import text, update

from db import workers
from db.tables import Lease, Worker
from tests.api.chat.conftest import HI, counted
from tests.api.chat.wire import WORDS, chunk
from tests.api.conftest import MODEL, client
from tests.ports import free_port
from tests.waiting import HANG, until

TEXT = "".join(WORDS)


def said(who, **fields):
    """What a streamed and what a whole answer say."""
    if fields.get("stream"):
        parts = list(who.openai.chat.completions.create(model=MODEL, messages=HI, **fields))
        return "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
    return who.openai.chat.completions.create(model=MODEL, messages=HI, **fields).choices[0].message.content


def refused(who, **fields):
    with pytest.raises(openai.APIStatusError) as error:
        said(who, **fields)
    return error.value


each = pytest.mark.parametrize("stream", [False, True])


@each
def test_who_holds_the_adapter_is_asked_then_who_trains_it_then_who_has_least_to_do(
    anna, factory, fleet, train, stream
):
    job, name = train(anna, "running", 3)
    idle, holds, trains = fleet.add(), fleet.add(held=[f"{job}@3"], queued_tokens=90), fleet.add(queued_tokens=50)
    with factory.begin() as session:
        session.get_one(Lease, job).worker_id = trains.worker

    def asked():
        answer = anna.openai.chat.completions.create(model=f"{name}:live", messages=HI, stream=stream)
        if stream:
            list(answer)
        return [len(wire.seen) for wire in (idle, holds, trains)]

    assert asked() == [0, 1, 0]
    with factory.begin() as session:
        workers.beat(session, holds.worker, serving={"url": holds.url, "held": [], "queued_tokens": 90, "answer": True})
    assert asked() == [0, 1, 1]
    assert said(anna) == TEXT
    assert [len(wire.seen) for wire in (idle, holds, trains)] == [1, 1, 1], "the base is nobody's: the idle one"


@each
@pytest.mark.parametrize("how", ["refuses", "resets", "ends", "drains", "engine", "secret"])
def test_a_worker_that_fails_before_its_first_byte_is_not_noticed(anna, fleet, stream, how):
    bad = None
    if how == "refuses":
        fleet.row(f"http://127.0.0.1:{free_port()}", queued_tokens=0)
    else:
        bad = fleet.add(queued_tokens=0)
    good = fleet.add(queued_tokens=1000)

    def act(handler, seen):
        if how == "resets":
            handler.die()
        elif how == "ends":
            handler.begin() if stream else handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
            handler.close_connection = True
        elif how == "drains":
            handler.refuse(503, "draining", "ends", retry_after="1")
        elif how == "engine" and stream:
            handler.begin()
            handler.event({"error": {"message": "x", "type": "server_error", "param": None, "code": "engine_failed"}})
            handler.ended()
        elif how == "engine":
            handler.refuse(503, "engine_failed", "x")
        else:
            handler.json(401, {"error": {"message": "who", "type": "x", "param": None, "code": None}})

    if bad is not None:
        bad.act = act
    assert said(anna, stream=stream) == TEXT
    assert len(good.seen) == 1
    assert bad is None or bad.seen


@each
def test_a_request_with_which_engines_fail_is_not_handed_round(factory, url, fleet, stream):
    """It may be what they fail of: of a fleet two are asked, and the client does not repeat it."""
    wires = [fleet.add() for _ in range(4)]
    for wire in wires:
        wire.act = lambda handler, _: handler.refuse(503, "engine_failed", "x", retry_after="1")
    patient = client(factory, url, f"dangerous-{stream}").openai.with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError) as error:
        patient.chat.completions.create(model=MODEL, messages=HI, stream=stream)
    assert (error.value.status_code, error.value.code) == (500, "worker_failed")
    assert sum(len(wire.seen) for wire in wires) == 2


@each
def test_a_frozen_worker_is_left_for_another(anna, fleet, stream):
    frozen, good = fleet.add(queued_tokens=0), fleet.add(queued_tokens=1000)
    frozen.frozen.set()
    frozen.act = lambda *_: frozen.thaw.wait()
    assert said(anna, stream=stream) == TEXT
    assert (len(frozen.seen), len(good.seen), frozen.loads) == (1, 1, 1)
    assert said(anna, stream=stream) == TEXT
    assert len(frozen.seen) == 1, "it is asked last for a while"


@each
def test_a_slow_worker_that_lives_is_waited_for(anna, worker, stream):
    def slowly(handler, seen):
        until(lambda: worker.loads >= 3, "it was asked three times whether it lives")
        handler.answer(seen)

    worker.act = slowly
    assert said(anna, stream=stream) == TEXT
    assert len(worker.seen) == 1


def test_a_kept_connection_that_was_cut_is_made_anew(anna, worker):
    """With one worker there is no other to go to."""
    said(anna)

    def once(handler, seen):
        worker.act = lambda handler, seen: handler.answer(seen)
        handler.die()

    worker.act = once
    assert said(anna) == TEXT
    assert len(worker.seen) == 3


@pytest.mark.parametrize("how", ["reset", "clean end", "frozen", "no json"])
def test_a_stream_that_a_worker_does_not_end_ends_with_an_error(eva, factory, worker, how):
    """And is not charged: neither a clean end nor a cut may be taken for a finished answer."""

    def act(handler, seen):
        handler.begin()
        handler.event(chunk(seen, "one"))
        if how == "reset":
            handler.die()
        elif how == "clean end":
            handler.ended()
        elif how == "frozen":
            worker.frozen.set()
            worker.thaw.wait()
        else:
            handler.event(b"{")
            handler.ended()

    worker.act = act
    heard = iter(eva.openai.chat.completions.create(model=MODEL, messages=HI, stream=True))
    assert next(heard).choices[0].delta.content == "one"
    with pytest.raises(openai.APIError) as failed:
        next(heard)
    assert failed.value.code == "worker_failed"
    worker.frozen.clear()
    worker.act = lambda handler, seen: handler.answer(seen)
    said(eva)
    until(lambda: counted(factory, eva), "what came after is written")
    assert counted(factory, eva) == [(11, 4, 3)]


def raw_stream(url, secret, wanted):
    body = {"model": MODEL, "messages": HI, "stream": True}
    with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=HANG,
                      headers={"authorization": f"Bearer {secret}"}) as answer:  # fmt: skip
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = b"".join(answer.iter_raw()).decode()
    assert wanted in text
    return text


def test_an_error_in_a_stream_is_passed_on_without_a_done(anna, train, worker, url):
    def act(handler, seen):
        handler.begin()
        handler.event(chunk(seen, "one"))
        handler.event({"error": {"message": "too late", "type": "server_error", "param": None, "code": "expired"}})
        handler.ended()

    worker.act = act
    assert "[DONE]" not in raw_stream(url, anna.secret, '"code":"expired"')
    worker.act = lambda handler, seen: handler.answer(seen)
    assert raw_stream(url, anna.secret, "[DONE]").endswith("data: [DONE]\n\n")


def test_comments_of_a_stream_are_passed_over(anna, worker):
    def act(handler, seen):
        handler.begin()
        handler.piece(b": still here\r\n\r\n")
        handler.event(chunk(seen, "one"))
        handler.piece(b"data: ")
        handler.piece(json.dumps(chunk(seen, " two")).encode() + b"\r\n")
        handler.piece(b"\r\nevent: x\ndata: [DONE]\n\n")
        handler.ended()

    worker.act = act
    assert said(anna, stream=True) == "one two"


def test_a_client_that_leaves_a_stream_closes_the_workers_at_once(eva, factory, worker):
    worker.act = lambda handler, seen: (handler.begin(), handler.until_cut(chunk(seen, "word")))
    stream = eva.openai.chat.completions.create(model=MODEL, messages=HI, stream=True)
    next(iter(stream))
    stream.close()
    assert worker.cut.wait(HANG)
    until(lambda: counted(factory, eva), "what was said until then is written")
    (prompt, cached, completion), *rest = counted(factory, eva)
    assert rest == []
    assert prompt > 0
    assert cached == 0
    assert completion >= 1


@each
def test_a_client_that_leaves_before_the_first_byte_closes_the_workers_at_once(anna, url, worker, stream):
    arrived = threading.Event()

    def waits(handler, seen):
        arrived.set()
        handler.connection.settimeout(HANG)
        assert handler.connection.recv(1) == b"", "the connection is closed, and nothing more is sent"
        worker.cut.set()
        handler.close_connection = True

    worker.act = waits
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps({"model": MODEL, "messages": HI, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {anna.secret}\r\n"
    with socket.create_connection((host, int(port)), timeout=HANG) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert arrived.wait(HANG)
    assert worker.cut.wait(HANG)


@each
def test_all_overloaded_is_a_503_that_is_not_repeated(factory, url, fleet, stream):
    wires = [fleet.add(), fleet.add()]
    for wire in wires:
        wire.act = lambda handler, _: handler.refuse(503, "overloaded", "too much", retry_after="7")
    patient = client(factory, url, f"patient-{stream}").openai.with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError) as error:
        patient.chat.completions.create(model=MODEL, messages=HI, stream=stream)
    assert (error.value.status_code, error.value.code) == (503, "overloaded")
    assert error.value.response.headers["retry-after"] == "7"
    assert [len(wire.seen) for wire in wires] == [1, 1], "the client's retries did not triple the load"


def test_who_is_overloaded_is_not_asked_where_another_is_not(anna, fleet):
    full, free = fleet.add(queued_tokens=0), fleet.add(queued_tokens=10)
    full.act = lambda handler, _: handler.refuse(503, "overloaded", "too much", retry_after="7")
    assert said(anna) == TEXT
    assert (len(full.seen), len(free.seen)) == (1, 1)


def test_no_worker_is_a_503_that_says_when_to_come_again(anna, fleet):
    fleet.add(model="plain")
    error = refused(anna)
    assert (error.status_code, error.code) == (503, "no_worker")
    assert int(error.response.headers["retry-after"]) > 0


def test_workers_that_do_not_beat_or_drain_are_not_asked(anna, factory, fleet):
    silent, leaving, good = fleet.add(), fleet.add(), fleet.add(queued_tokens=500)
    with factory.begin() as session:
        workers.beat(session, leaving.worker, state="draining")
        old = text("now() - interval '60 seconds'")
        session.execute(update(Worker).where(Worker.id == silent.worker).values(heartbeat_at=old))
    assert said(anna) == TEXT
    assert [len(w.seen) for w in (silent, leaving, good)] == [0, 0, 1]


def test_what_a_worker_says_that_cannot_be_read_makes_it_nobody(anna, fleet):
    for url in ("ftp://x", None, 7):
        fleet.row(url)
    assert refused(anna).code == "no_worker"


@pytest.mark.parametrize("status, code, seen_as", [
    (400, "invalid_value", (400, "invalid_value", "stop")), (404, "adapter_unknown", (404, "model_not_found", "model")),
    (413, "too_long", (413, "too_long", "stop")), (500, "internal_error", (500, "internal_error", None)),
    (504, "deadline_exceeded", (504, "deadline_exceeded", None)),
])  # fmt: skip
@each
def test_what_a_worker_refuses_is_in_our_shape_and_without_its_names(
    anna, train, worker, status, code, seen_as, stream
):
    job, name = train(anna, "running", 2)
    worker.act = lambda handler, _: handler.refuse(status, code, f"not {job}@2, which it is", "stop")
    with pytest.raises(openai.APIStatusError) as error:
        anna.openai.chat.completions.create(model=f"{name}:live", messages=HI, stream=stream)
    assert (error.value.status_code, error.value.code, error.value.param) == seen_as
    assert job + "@" not in str(error.value.body)
    if status >= 500:
        assert error.value.response.headers["x-should-retry"] == "false"


def test_an_answer_that_is_none_is_an_error(anna, worker):
    worker.act = lambda handler, _: handler.json(200, [1])
    assert refused(anna).status_code == 500


def test_many_streams_at_once_are_each_their_own(anna, worker):
    def each_its_own(handler, seen):
        handler.begin()
        for i in range(20):
            handler.event(chunk(seen, f"{seen.body['seed']}."))
            if i % 7 == 0:
                time.sleep(0.01)
        handler.done()

    worker.act = each_its_own
    heard = {}

    def ask(number):
        heard[number] = said(anna, stream=True, seed=number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert heard == {number: f"{number}." * 20 for number in range(24)}
