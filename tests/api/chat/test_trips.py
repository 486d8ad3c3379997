"""What a chat costs of the database, counted on the wire: its hop grows by each round trip, and nobody would notice."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest
from sqlalchemy import make_url, text

from api.last_use import LastUse
from db.ids import checkpoint_name, live_name
from db.session import make_engine
from tests.api.chat.conftest import HI, published
from tests.api.conftest import MODEL, client, serving
from tests.waiting import HANG

TRIPS = 2  # the key, before the body is read; what the name means, what is left, who serves it


@dataclass
class Relay:
    """Between an API and PostgreSQL: counts the times that something was said to the database after it had spoken."""

    url: str
    trips: int = 0
    cut: threading.Event = field(default_factory=threading.Event)  # set: the next that is said is lost, once


@contextmanager
def relayed(url: str) -> Iterator[Relay]:
    to = make_url(url)
    server = socket.create_server(("127.0.0.1", 0))
    relay = Relay(to.set(host="127.0.0.1", port=server.getsockname()[1]).render_as_string(hide_password=False))

    def pipe(near: socket.socket, far: socket.socket, heard: threading.Event, asks: bool) -> None:
        with suppress(OSError):
            while data := near.recv(1 << 16):
                if asks and relay.cut.is_set():
                    relay.cut.clear()
                    near.shutdown(socket.SHUT_RDWR)
                    break
                if asks and heard.is_set():
                    heard.clear()
                    relay.trips += 1
                elif not asks:
                    heard.set()
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    def take() -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection((to.host, to.port))
                heard = threading.Event()
                for one, other, asks in ((near, far, True), (far, near, False)):
                    threading.Thread(target=pipe, args=(one, other, heard, asks), daemon=True).start()

    threading.Thread(target=take, daemon=True).start()
    yield relay
    server.close()


@pytest.fixture
def counted(chats, urls):
    with relayed(urls.api_url) as relay:
        still = {"serve_usage_seconds": HANG, "database_url": relay.url, "requests_a_minute": 12_000}
        with serving(chats.model_copy(update=still)) as url:
            yield relay, url


def test_a_chat_is_two_round_trips_by_whatever_name(counted, factory, train, worker, monkeypatch):
    relay, url = counted
    monkeypatch.setattr(LastUse, "note", lambda *_: False)
    who = client(factory, url, "counted", serve_quota=10**9, daily_serve_tokens=10**9)
    job, name = train(who, "succeeded", 3)
    _, trains = train(who, "running", 7)
    published(factory, who, job, name, 3)
    for model in (MODEL, name, checkpoint_name(name, 2), live_name(trains)):
        ask = who.openai.chat.completions.create
        ask(model=model, messages=HI)  # connections are made
        before = relay.trips
        for stream in (False, True):
            answer = ask(model=model, messages=HI, stream=stream)
            assert not stream or list(answer)
        assert relay.trips - before == 2 * TRIPS, model


def test_a_connection_that_is_cut_as_it_is_used_costs_no_answer(counted, factory, worker):
    relay, url = counted
    who = client(factory, url, "cut")
    ask = who.openai.chat.completions.create
    ask(model=MODEL, messages=HI)
    for _ in range(2):
        relay.cut.set()
        assert ask(model=MODEL, messages=HI).choices
        assert not relay.cut.is_set(), "a connection was cut"


def test_a_pooled_connection_is_asked_nothing_and_one_that_was_cut_is_not_used(urls, factory):
    with relayed(urls.database_url) as relay:
        engine = make_engine(relay.url, pool_size=1)
        with engine.begin() as one:
            pid = one.scalar(text("SELECT pg_backend_pid()"))
        before = relay.trips
        with engine.begin() as one:
            assert one.scalar(text("SELECT pg_backend_pid()")) == pid
        assert relay.trips - before == 3, "its beginning, what is asked, its end"
        idle = engine.raw_connection()
        socket_of = idle.driver_connection.fileno()
        idle.close()
        with factory.begin() as session:
            session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        assert select.select([socket_of], [], [], HANG)[0], "its end has come"
        idle = engine.raw_connection().driver_connection  # the pool's only one, looked at as it is taken
        assert idle.info.backend_pid != pid
        engine.dispose()
