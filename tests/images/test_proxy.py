"""What stands before the API in docker-compose.yml, run by the real HAProxy with Compose's own words: it holds requests
while nobody listens, sends each once, passes streams on as they come, and says what it gave up in the API's shape."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.composing import TOOLS, composed
from tests.images.proxied import ESTABLISHED, LISTENS, Behind, Names, Proxy, proxied, sockets
from tests.waiting import HANG, until


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with proxied(tmp_path / "proxy") as found:
        yield found


def test_haproxy_finds_nothing_to_say_about_it(tmp_path: Path) -> None:
    text = composed()["services"]["proxy"]["environment"]["HAPROXY_CFG"]
    (tmp_path / "cfg").write_text(text.replace("api:8000", "127.0.0.1:8000"))
    done = subprocess.run([TOOLS / "haproxy", "-c", "-f", tmp_path / "cfg"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr + done.stdout


def test_requests_wait_for_an_api_that_is_away_and_are_sent_once(proxy: Proxy) -> None:
    """Whatever their size: nothing of a body is read past a buffer before somebody listens."""
    bodies = [b"small", b"x" * (4 << 20)]
    waiting = [proxy.later("POST", "/v1/files", body) for body in bodies]
    until(lambda: sockets(proxy.port, ESTABLISHED) == 2, proxy.log.read_text)
    assert all(one.is_alive() for one in waiting)
    with Behind(proxy.api) as api:
        assert [one.answer() for one in waiting] == bodies
        assert sorted(api.bodies, key=len) == bodies
        assert proxy.ask("POST", "/v1/files", b"again").read() == b"again"
    late = proxy.later("POST", "/v1/files", b"late")
    until(lambda: sockets(proxy.port, ESTABLISHED) >= 1, proxy.log.read_text)
    with Behind(proxy.api):
        assert late.answer() == b"late", "it comes back more than once"


def test_an_api_that_was_replaced_is_found_at_its_new_address(tmp_path: Path) -> None:
    """A container that is replaced has no address for a while, and then another."""
    with Names("127.0.0.1") as names, proxied(tmp_path / "proxy", names=names) as proxy:
        with Behind(proxy.api):
            assert proxy.ask("POST", "/v1/files", b"before").read() == b"before"
        names.address = None
        seen = names.asked
        held = proxy.later("POST", "/v1/files", b"held")
        until(lambda: names.asked > seen + 4, proxy.log.read_text)
        assert held.is_alive()
        with Behind(proxy.api, "127.0.0.2") as api:
            names.address = "127.0.0.2"
            assert held.answer() == b"held"
            assert api.bodies == [b"held"]
        names.shutdown()


def test_a_probe_is_told_at_once(proxy: Proxy) -> None:
    begun = time.monotonic()
    statuses = [proxy.ask("GET", path).status for path in ("/healthz", "/readyz")]
    assert statuses == [503, 503]
    assert time.monotonic() - begun < 30, "not held for as long as others"


def test_who_was_held_in_vain_is_told_in_the_apis_shape(tmp_path: Path) -> None:
    with proxied(tmp_path / "proxy", hold=1) as proxy:
        answer = proxy.ask("POST", "/v1/files", b"body")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert answer.headers["content-type"] == "application/json"
        error = json.loads(answer.read())["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == ("server_error", "unavailable")


def test_what_was_sent_is_not_sent_again(proxy: Proxy) -> None:
    """An API that ends after it has read a request may have done it."""
    with Behind(proxy.api) as api:
        answer = proxy.ask("POST", "/cut", b"once")
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (502, "unavailable")
        assert api.bodies == [b"once"]


def test_a_stream_is_passed_on_as_it_comes_and_ends_before_the_proxy_does(proxy: Proxy) -> None:
    with Behind(proxy.api) as api:
        answer = proxy.ask("GET", "/v1/stream")
        assert answer.read(5) == b"first", "the second is not there yet"
        stop = composed()["services"]["proxy"]["stop_signal"]
        proxy.child.send_signal(getattr(signal, stop))
        until(lambda: not sockets(proxy.port, LISTENS), proxy.log.read_text)
        assert proxy.child.poll() is None
        api.go_on.set()
        assert answer.read() == b"second"
        assert proxy.child.wait(HANG) == 0
