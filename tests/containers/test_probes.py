"""Probes as kubelet asks them: read from a spec, asked over real sockets, counted as the spec says."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.containers.pods.probes import Probe, Watch, probes
from tests.containers.pods.site import kinds
from tests.helm.charts import rendered
from tests.ports import free_port
from tests.waiting import until


@pytest.fixture
def server():
    """An HTTP server whose next statuses are in `answers`; the last one stays."""

    class Handler(BaseHTTPRequestHandler):
        answers = [200]  # noqa: RUF012

        def do_GET(self):
            time.sleep(0.3 if self.path == "/slow" else 0)
            answers = type(self).answers
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.end_headers()
            self.wfile.write(b"said")

        def log_message(self, *_):
            pass

    one = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=one.serve_forever, args=(0.01,))
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


def test_probes_are_read_from_the_spec_with_kubelets_defaults():
    container = {
        "ports": [{"name": "http", "containerPort": 8000}],
        "startupProbe": {"httpGet": {"path": "/a", "port": "http"}, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {"exec": {"command": ["ask", "it"]}, "timeoutSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": 9}, "initialDelaySeconds": 2, "successThreshold": 1},
    }
    assert probes(container) == {
        "startup": Probe("startup", "httpGet", 8000, "/a", period=1, failures=60),
        "readiness": Probe("readiness", "exec", command=("ask", "it"), timeout=5),
        "liveness": Probe("liveness", "tcpSocket", 9, delay=2),
    }
    with pytest.raises(KeyError):
        probes({"livenessProbe": {"tcpSocket": {"port": "nowhere"}}})


def test_every_probe_of_the_trial_is_read():
    for component in ("api", "worker", "postgres", "valkey"):
        (container,) = kinds(rendered("trial"))[component].template["spec"]["containers"]
        assert probes(container).keys() == {"startup", "readiness", "liveness"}
        assert all(probe.port or probe.command for probe in probes(container).values())


def test_http_holds_below_400_and_in_time(server):
    host, port = server.server_address
    handler = server.RequestHandlerClass
    for status, holds in ((200, True), (302, True), (404, False), (503, False)):
        handler.answers = [status]
        assert (Probe("readiness", "httpGet", port).ask(host, lambda *_: "") == "") is holds, status
    handler.answers = [200]
    slow = Probe("readiness", "httpGet", port, "/slow", timeout=0.05)
    assert "imed" in slow.ask(host, lambda *_: "")
    assert Probe("readiness", "httpGet", free_port()).ask(host, lambda *_: "")


def test_tcp_and_commands(server):
    host, port = server.server_address
    assert Probe("liveness", "tcpSocket", port).ask(host, lambda *_: "no") == ""
    assert Probe("liveness", "tcpSocket", free_port()).ask(host, lambda *_: "") != ""
    asked = []
    probe = Probe("readiness", "exec", command=("is", "it"), timeout=3)
    assert probe.ask(host, lambda *words: asked.append(words) or "not yet") == "not yet"
    assert asked == [(("is", "it"), 3)]


def quick(kind, failures):
    return Probe(kind, "exec", command=(kind,), period=0.02, failures=failures)


@pytest.fixture
def watched():
    """A watch of three quick probes, what they answer, and how often its container was to be killed."""
    says, deaths = {"startup": "no", "readiness": "", "liveness": ""}, []
    kinds_of = {kind: quick(kind, 3) for kind in says}
    watch = Watch(kinds_of, "", lambda command, _: says[command[0]], lambda: deaths.append(1))
    yield watch, says, deaths
    watch.close()


def test_nothing_is_asked_before_startup_holds(watched):
    watch, says, deaths = watched
    until(lambda: deaths, "a startup that failed three times")
    assert not watch.ready.is_set()
    assert not watch.live.is_set()
    says["startup"] = ""
    until(lambda: watch.ready.is_set() and watch.live.is_set(), "a pod that is ready")
    assert [change for _, change, _ in watch.history][:2] == ["startup failed 3 times", "startup holds"]


def test_readiness_goes_and_comes_and_kills_nobody(watched):
    watch, says, deaths = watched
    says["startup"] = ""
    until(watch.ready.is_set, "ready")
    deaths.clear()
    says["readiness"] = "away"
    until(lambda: not watch.ready.is_set(), "not ready")
    assert watch.history[-1][1:] == ("readiness failed 3 times", "away")
    says["readiness"] = ""
    until(watch.ready.is_set, "ready again")
    assert not deaths


def test_liveness_kills_once_and_a_new_container_begins_with_startup(watched):
    watch, says, deaths = watched
    says["startup"] = ""
    until(watch.live.is_set, "live")
    deaths.clear()
    says["liveness"] = "hangs"
    until(lambda: deaths, "a death")
    time.sleep(0.2)
    assert len(deaths) == 1
    says["startup"] = "not yet"
    watch.restarted("it was killed")
    assert not any(known.is_set() for known in (watch.started, watch.ready, watch.live))
    says.update(startup="", liveness="")
    until(lambda: watch.ready.is_set() and watch.live.is_set(), "a pod that is ready again")
