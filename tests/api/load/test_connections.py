"""What a client can hold open, and for how long: real sockets, with times set to tenths of a second."""

import contextlib
import json
import socket
import time
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import pytest

from api.settings import Settings
from tests.api.conftest import client, serving
from tests.api.examples import http
from tests.api.processes import process
from tests.waiting import AGES, HANG, until

HEAD = "GET /v1/models HTTP/1.1\r\nHost: x\r\n"  # and not its end
PATIENT = {"head_seconds": AGES, "body_idle_seconds": AGES, "keep_alive_seconds": AGES, "min_body_rate": 0}


def connect(url):
    address = urlsplit(url)
    return closing(socket.create_connection((address.hostname, address.port), timeout=HANG))


def rest(wire):
    """What comes until the other side ends it."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := wire.recv(65536):
            said += piece
    return said


def error(said):
    head, _, body = said.partition(b"\r\n\r\n")
    found = json.loads(body)["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return int(head.split()[1]), found["code"], head.decode().lower()


@pytest.fixture
def opened(settings, factory):
    """An API with these settings beside patient ones, and a tenant's head of a request with a body of 1000 bytes."""
    with ExitStack() as last:

        def start(**changes):
            url = last.enter_context(serving(settings.model_copy(update=PATIENT | changes)))
            who = client(factory, url, f"t-{time.monotonic_ns()}")
            head = (
                f"POST /v1/fine_tuning/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {who.secret}\r\n"
                "Content-Length: 1000\r\n\r\n"
            )
            return url, head.encode()

        yield start


def test_four_hundred_heads_that_do_not_end_are_ended(settings, anna):
    with process(settings, head_seconds=0.5, max_connections_of_address=500) as (_, root), ExitStack() as last:
        wires = [last.enter_context(connect(root)) for _ in range(400)]
        for wire in wires:
            wire.sendall(HEAD.encode())
        answer = http.get(f"{root}/v1/models", headers={"Authorization": f"Bearer {anna.secret}"})
        assert answer.status_code == 200, "meanwhile another is answered"
        for wire in wires:
            assert error(rest(wire))[:2] == (408, "request_timeout")


def test_a_head_that_comes_by_the_byte_has_no_more_time(opened):
    url, _ = opened(head_seconds=0.3)
    with connect(url) as wire, contextlib.suppress(OSError):
        for byte in HEAD.encode() * 1000:
            wire.sendall(bytes([byte]))
            wire.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                assert error(wire.recv(65536))[:2] == (408, "request_timeout")
                break
        else:
            pytest.fail("it was let go on")


def test_a_connection_that_says_nothing_is_closed_and_one_between_requests_too(opened):
    url, _ = opened(head_seconds=0.2, keep_alive_seconds=0.2)
    with connect(url) as wire:
        assert rest(wire) == b""
    with connect(url) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert rest(wire).startswith(b"HTTP/1.1 200")


def test_a_second_request_has_its_time_too(opened):
    url, _ = opened(head_seconds=0.3)
    with connect(url) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.recv(65536).startswith(b"HTTP/1.1 200")
        wire.sendall(HEAD.encode())
        assert b"408" in rest(wire)


def test_a_head_without_end_in_size_is_refused(opened):
    url, _ = opened()
    with connect(url) as wire, contextlib.suppress(OSError):
        wire.sendall(HEAD.encode() + b"X-Filler: " + b"a" * (200 << 10))
        assert rest(wire).split()[1] in (b"431", b"400")


def test_a_body_that_stops_is_told(opened):
    url, head = opened(body_idle_seconds=0.2)
    with connect(url) as wire:
        wire.sendall(head + b'{"model"')
        status, code, said = error(rest(wire))
        assert (status, code) == (408, "request_timeout")
        assert "x-request-id" in said


def test_a_body_that_trickles_is_told(opened):
    url, head = opened(body_idle_seconds=0.3, min_body_rate=1 << 20)
    with connect(url) as wire:
        wire.sendall(head)
        wire.settimeout(0.02)
        for _ in range(999):
            wire.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                assert error(wire.recv(65536))[:2] == (408, "request_timeout")
                break
        else:
            pytest.fail("it was let go on")


def test_what_follows_an_answer_is_read_no_longer_than_a_body_may_stop(opened):
    url, _ = opened(body_idle_seconds=0.3)
    with connect(url) as wire, contextlib.suppress(OSError):
        wire.sendall(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        assert wire.recv(65536).startswith(b"HTTP/1.1 401")
        ends = time.monotonic() + HANG
        while time.monotonic() < ends:
            wire.sendall(b" ")
            wire.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                if wire.recv(1) == b"":
                    return
        pytest.fail("it is read for ever")


def test_beyond_its_connections_an_address_is_refused_until_one_ends(opened):
    url, _ = opened(max_connections_of_address=3)
    root = url.removesuffix("/v1")
    with ExitStack() as last:
        wires = [last.enter_context(connect(url)) for _ in range(3)]
        with connect(url) as fourth:
            status, code, head = error(rest(fourth))
            assert (status, code) == (503, "unavailable")
            assert "retry-after: 1" in head
        wires[0].close()

        def answered() -> bool:
            with contextlib.suppress(Exception):
                return http.get(f"{root}/healthz").status_code == 200
            return False

        until(answered, "its place is free")


def test_a_trusted_proxy_has_no_limit_of_an_address_and_the_whole_has_one(opened):
    url, _ = opened(max_connections_of_address=1, max_connections=3, trusted_proxies="127.0.0.0/8")
    with ExitStack() as last:
        wires = [last.enter_context(connect(url)) for _ in range(3)]
        with connect(url) as fourth:
            assert error(rest(fourth))[0] == 503
        wires[2].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wires[2].recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "limit, status, code",
    [("max_requests", 503, "unavailable"), ("max_requests_of_tenant", 429, "rate_limit_exceeded")],
)
def test_beyond_the_requests_under_way_one_is_told_to_come_back(opened, ben, limit, status, code):
    url, head = opened(**{limit: 1})
    with connect(url) as slow:
        slow.sendall(head.replace(b"Content-Length", b"Expect: 100-continue\r\nContent-Length"))
        assert slow.recv(65536).startswith(b"HTTP/1.1 100"), "its body is waited for"
        key = head.decode().partition("Bearer ")[2].partition("\r")[0]

        def ask():
            return http.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"})

        answer = ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.headers["retry-after"] == "1"
        assert http.get(url.removesuffix("/v1") + "/readyz").status_code == 200
        other = http.get(f"{url}/models", headers={"Authorization": f"Bearer {ben.secret}"})
        assert other.status_code == (503 if limit == "max_requests" else 200)
        slow.sendall(b" " * 1000)
        assert slow.recv(65536).startswith(b"HTTP/1.1 400")
    until(lambda: ask().status_code == 200, "its place is free")


@pytest.mark.parametrize("trusted", ["10.0.0.1/8", "proxy", "1.2.3"])
def test_proxies_that_are_no_addresses_are_told(trusted):
    with pytest.raises(ValueError, match="trusted_proxies"):
        Settings(trusted_proxies=trusted)
