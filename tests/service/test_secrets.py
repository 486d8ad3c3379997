"""Processes with planted secrets, as they start, work, fail and end: nothing that leaves them shows one."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from db.tenant import keys
from tests.bases import tiny
from tests.ports import free_port
from tests.service.stage import HASTE
from tests.waiting import HANG, until

PLANTED = "pl4nted-w0rd"
WRONG_KEY = f"sk-onward-{PLANTED}" + "x" * 31
ONWARD = (sys.executable, "-m", "cli")
COMMANDS = (
    (sys.executable, "-m", "api"),
    (sys.executable, "-m", "worker"),
    *((*ONWARD, *words.split()) for words in ("doctor", "keys list", "migrate")),
)
PATHS = ("/readyz", "/v1/models", "/v1/files", "/v1/nowhere", "/v1/onward/audit", "/metrics", "/openapi.json")


def swapped(url: str, password: str) -> str:
    return re.sub(r":[^:@]*@", f":{password}@", url)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny("llama", tmp_path_factory.mktemp("base"))


@pytest.fixture
def env(database_url, redis_url, base, tmp_path):
    """Everything a process needs, right."""
    ours = {
        "ONWARD_DATABASE_URL": database_url,
        "ONWARD_REDIS_URL": redis_url,
        "ONWARD_MODELS": json.dumps({"tiny": str(base)}),
        "ONWARD_HOME": str(tmp_path),
        "ONWARD_LOG_LEVEL": "DEBUG",
        "ONWARD_MODEL": "tiny",
        "ONWARD_SCORER": "torch",
    }
    return {k: v for k, v in os.environ.items() if not k.startswith("ONWARD_")} | HASTE | ours


def secrets_of(*urls):
    return [PLANTED, *(str(make_url(url.replace("redis://", "postgresql://")).password) for url in urls)]


class Running:
    """A process of ours, and all that it says."""

    def __init__(self, command, env, log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self.popen = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def titles(self) -> str:
        return "".join(Path(f"/proc/{self.popen.pid}/{name}").read_text() for name in ("cmdline", "comm"))

    def end(self) -> None:
        self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(HANG)
        finally:
            self.popen.kill()


WRONG = {
    "a setting": {"ONWARD_LOG_LEVEL": "LOUD", "ONWARD_MODEL": None},
    "URLs": {
        "ONWARD_DATABASE_URL": f"postgresql://u:{PLANTED}/x@127.0.0.1:1/d",
        "ONWARD_REDIS_URL": f"redis://:{PLANTED}@127.0.0.1:port/0",
    },
    "passwords": {},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_process_says_of_settings_that_are_wrong(env, tmp_path, wrong):
    """Every command at once; each says what is wrong and ends, or looks at what it cannot use."""
    secret = tmp_path / "secrets"
    secret.mkdir()
    (secret / "onward_redis_password").write_text(PLANTED)
    planted = {name: swapped(env[name], PLANTED) for name in ("ONWARD_DATABASE_URL", "ONWARD_REDIS_URL")}
    whole = env | planted | {"ONWARD_SECRETS_DIR": str(secret), "ONWARD_PORT": "0"} | WRONG[wrong]
    whole = {name: value for name, value in whole.items() if value is not None}
    found = [Running(command, whole, tmp_path / f"{i}.log") for i, command in enumerate(COMMANDS)]
    for process in found:
        lasts = "serving" if process.popen.args[-1] == "api" else None  # an API waits for its database
        until(lambda p=process, word=lasts: not p.alive or (word is not None and word in p.said), "an end")
        process.popen.kill()
        process.popen.wait()
        words = process.popen.args[2:]
        assert process.said.strip(), words
        assert PLANTED not in process.said, words


@pytest.fixture
def collector():
    """What an exporter of traces sends, as bytes."""
    sent: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("passwords", ["right", "wrong"])
def test_what_an_api_shows_while_it_serves(env, factory, tmp_path, collector, passwords, database_url, redis_url):
    endpoint, spans = collector
    port = free_port()
    told = {"ONWARD_PORT": str(port), "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "ONWARD_DRAIN_SECONDS": "0"}
    if passwords == "wrong":
        told |= {name: swapped(env[name], PLANTED) for name in ("ONWARD_DATABASE_URL", "ONWARD_REDIS_URL")}
    with factory.begin() as session:
        tenant = keys.create(session, f"t-{passwords}")
        _, good = keys.create_key(session, tenant.id)
    api = Running([sys.executable, "-m", "api"], env | told, tmp_path / "api.log")
    texts: list[str] = []

    def answers() -> bool:
        assert api.alive, api.said
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers, "the API answers")
        statuses = set()
        for path in (
            "/readyz",
            "/v1/models",
            "/v1/files",
            "/v1/nowhere",
            "/v1/onward/audit",
            "/metrics",
            "/openapi.json",
        ):
            for key in (good, WRONG_KEY):
                sent = {"authorization": f"Bearer {key}"}
                for verb in ("GET", "POST"):
                    url = f"http://127.0.0.1:{port}{path}?api_key={key}"
                    answer = httpx.request(verb, url, headers=sent, timeout=HANG)
                    statuses.add(answer.status_code)
                    texts += [answer.text, str(answer.headers)]
        assert statuses >= ({200, 401, 404, 405} if passwords == "right" else {200, 404, 503})
        texts.append(api.titles)
    finally:
        api.end()
    texts += [api.said, *(s.decode("utf-8", "replace") for s in spans)]
    assert any("GET /v1/models" in text for text in texts[-len(spans) :])
    assert "answered" in api.said
    for secret in (*secrets_of(database_url, redis_url), good):
        assert not [text for text in texts if secret in text]


def test_what_a_worker_shows_whose_broker_refuses_it(env, tmp_path, database_url, redis_url):
    """It starts, since the rows are the truth, and goes on asking the broker."""
    port = free_port()
    told = {"ONWARD_WORKER_METRICS_PORT": str(port), "ONWARD_REDIS_URL": swapped(redis_url, PLANTED)}
    worker = Running([sys.executable, "-m", "worker"], env | told, tmp_path / "worker.log")

    def refused() -> bool:
        assert worker.alive, worker.said
        return "invalid username-password" in worker.said

    try:
        until(refused, "the broker refuses the worker")
        texts = [worker.titles, httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=HANG).text]
    finally:
        worker.end()
    for secret in secrets_of(database_url, redis_url):
        assert not [text for text in (*texts, worker.said) if secret in text]
