"""Cases 5, 8 and 10: one tenant's requests, connections and repetitions do not keep the API from others."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import openai
import redis
from openai import OpenAI

from db import queue
from tests.chaos.cases.ground import Claim, Ground, within
from tests.chaos.fleet import models_of
from tests.service.conftest import rows
from tests.waiting import HANG

ELSEWHERE = "127.0.0.2"  # the adversary's address: limits by address must not meet the bystander
POSTS, FLOOD, HALF_SENT = 45, 3000, 400
GIVE_UP = 40.0  # seconds after which an API that does not answer has shown enough


class Prober(threading.Thread):
    """Asks again and again while it lives; `slowest` in seconds, `bad` statuses other than 200."""

    def __init__(self, ask: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self._ask, self._over = ask, threading.Event()
        self.slowest, self.bad = 0.0, list[int]()

    def run(self) -> None:
        while not self._over.wait(0.25):
            begun = time.monotonic()
            try:
                status = self._ask()
            except httpx.HTTPError:
                status = 0
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.bad += [status] if status != 200 else []

    def stop(self) -> None:
        self._over.set()
        self.join()


@contextmanager
def probed(url: str, secret: str) -> Iterator[dict[str, Prober]]:
    """`/readyz`, and a bystander's list of models, asked four times a second."""
    with httpx.Client(timeout=GIVE_UP, headers={"authorization": f"Bearer {secret}"}) as http:
        probers = {
            "/readyz": Prober(lambda: http.get(f"{url}/readyz").status_code),
            "the bystander's /v1/models": Prober(lambda: http.get(f"{url}/v1/models").status_code),
        }
        for prober in probers.values():
            prober.start()
        try:
            yield probers
        finally:
            for prober in probers.values():
                prober.stop()


def answers_meanwhile(probers: dict[str, Prober], alone: dict[str, Prober]) -> Iterator[Claim]:
    """Within a second, beyond what the same takes on this machine when nothing happens."""
    for name, prober in probers.items():
        limit = 1.0 + alone[name].slowest
        fine = prober.slowest <= limit and not prober.bad
        yield Claim(f"{name} within 1 s", fine, f"{prober.slowest:.2f} s {sorted(set(prober.bad)) or ''}".strip())


def counting(ground: Ground) -> Iterator[Claim]:
    """5: many POSTs on one large file are one count, outside of the requests' pool."""
    adversary, bystander = ground.tenant("adversary"), ground.tenant("bystander")
    line = rows(1)
    data = b"".join(rows(1, start=i) for i in range(int(4.7 * 2**20) // (len(line) + 8)))
    with ground.fleet.own_api() as (url, api):
        with probed(url, bystander.api_key) as alone:
            time.sleep(1)
        theirs = adversary.with_options(base_url=f"{url}/v1", timeout=GIVE_UP)
        training = ground.file(theirs, data)
        own = {"steps": 3, "batch_size": 2, "rank": 1, "targets": ["q_proj"], "method": "mezo", "learning_rate": 1e-2}
        statuses: list[int] = []

        def ask() -> None:
            try:
                theirs.fine_tuning.jobs.create(model=ground.model, training_file=training, extra_body={"onward": own})
                statuses.append(200)
            except openai.APIStatusError as error:
                statuses.append(error.status_code)
            except openai.APIConnectionError:
                statuses.append(0)

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(POSTS)]
        begun = time.monotonic()
        with probed(url, bystander.api_key) as probers:
            for thread in threads:
                thread.start()
            within(lambda: not any(t.is_alive() for t in threads), GIVE_UP)
        took = time.monotonic() - begun
        yield from answers_meanwhile(probers, alone)
        told = {status: statuses.count(status) for status in sorted(set(statuses))}
        fine = len(statuses) == POSTS and not any(s == 0 or s >= 500 for s in statuses)
        yield Claim(f"{POSTS} POSTs on {len(data) / 2**20:.1f} MiB are answered", fine, f"{told} in {took:.1f} s")
        for _ in range(4):
            threading.Thread(target=ask, daemon=True).start()
        begun = time.monotonic()
        api.send(signal.SIGTERM)
        within(lambda: not api.alive, 30)
        yield Claim("SIGTERM ends it within 10 s", time.monotonic() - begun <= 10, f"{time.monotonic() - begun:.1f} s")


def half_sent(ground: Ground) -> Iterator[Claim]:
    """8: who sends half a request is cut off, who sends too many is told to wait, others notice neither."""
    adversary, bystander = ground.tenant("adversary"), ground.tenant("bystander")
    with ground.fleet.own_api(ONWARD_REQUESTS_A_MINUTE="2000") as (url, _):
        with probed(url, bystander.api_key) as alone:
            time.sleep(1)
        port = int(url.rpartition(":")[2])
        with probed(url, bystander.api_key) as probers, half_requests(port) as connections:
            begun = time.monotonic()
            within(lambda: not held(connections), GIVE_UP)
            took, left = time.monotonic() - begun, held(connections)
        yield from answers_meanwhile(probers, alone)
        yield Claim(f"{HALF_SENT} half-sent heads are cut off", left == 0, f"{left} held after {took:.1f} s")
        with probed(url, bystander.api_key) as probers:
            told = flooded(url, adversary.api_key)
        yield told
        yield from answers_meanwhile(probers, alone)


@contextmanager
def half_requests(port: int) -> Iterator[list[socket.socket]]:
    """Connections that have sent half a head, without a key."""
    made: list[socket.socket] = []
    try:
        for _ in range(HALF_SENT):
            connection = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(ELSEWHERE, 0))
            made.append(connection)
            with suppress(OSError):
                connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Half: ")
            connection.setblocking(False)
        yield made
    except OSError:  # refused: that many are not let in at all
        yield made
    finally:
        for connection in made:
            connection.close()


def held(connections: list[socket.socket]) -> int:
    """How many of them the other side has not closed."""
    count = 0
    for connection in connections:
        try:
            while connection.recv(4096):
                pass
        except BlockingIOError:
            count += 1
        except OSError:
            pass
    return count


def flooded(url: str, secret: str) -> Claim:
    """As many requests as it takes to be told to wait."""
    transport = httpx.HTTPTransport(local_address=ELSEWHERE)
    headers = {"authorization": f"Bearer {secret}"}
    with httpx.Client(transport=transport, headers=headers, timeout=GIVE_UP) as http:
        begun, asked = time.monotonic(), 0
        for _ in range(FLOOD):
            asked += 1
            answer = http.get(f"{url}/v1/models")
            if answer.status_code == 429 or time.monotonic() - begun > GIVE_UP:
                break
    after = answer.headers.get("retry-after", "")
    fine = answer.status_code == 429 and after.isdecimal()
    told = (
        f"{answer.status_code} after {asked} requests in {time.monotonic() - begun:.1f} s, retry-after {after or '-'}"
    )
    return Claim("a flood is told when to come again", fine, told)


def repetitions(ground: Ground) -> Iterator[Claim]:
    """10: keys that repeat, files that go, charsets that are none, bells that pile up, secrets in texts."""
    tenant = ground.tenant("adversary")
    yield _repeated(ground, tenant)
    yield from _deleted(ground, tenant)
    statuses = [_form(ground, tenant.api_key, *form) for form in FORMS]
    yield Claim("charsets that are none are 400", all(s == 400 for s in statuses), str(statuses))
    job = ground.submit(tenant)
    with redis.Redis.from_url(ground.fleet.redis_url) as client:
        for _ in range(60):
            tenant.fine_tuning.jobs.pause(job)
            tenant.fine_tuning.jobs.resume(job)
        bells = int(client.llen(queue.queue_name(ground.model)))  # type: ignore[arg-type]
    yield Claim("one doorbell a model", bells <= 2, f"{bells} after 60 resumes")
    ground.cancel((tenant, job))
    yield _secrets(ground)


def _repeated(ground: Ground, tenant: OpenAI) -> Claim:
    training = ground.file(tenant, rows(8))
    own = {"steps": 3, "batch_size": 2, "rank": 1, "targets": ["q_proj"], "method": "mezo", "learning_rate": 1e-2}
    told = []
    for _ in range(2):
        try:
            job = tenant.fine_tuning.jobs.create(
                model=ground.model, training_file=training, extra_body={"onward": own},
                extra_headers={"Idempotency-Key": "once"},
            )  # fmt: skip
            told.append(job.id)
        except openai.APIStatusError as error:
            told.append(str(error.status_code))
        if len(told) == 1:
            tenant.files.delete(training)
    ground.cancel((tenant, told[0]))
    return Claim("a repeated key is answered after its file is gone", told[0] == told[1], f"{told[0]}, {told[1]}")


def _deleted(ground: Ground, tenant: OpenAI) -> Iterator[Claim]:
    with ground.crew(ground.post()):
        job = ground.submit(tenant, steps=5)
        ground.over(job)
        found = tenant.fine_tuning.jobs.retrieve(job)
        if not found.result_files:
            yield Claim("a job's result is there to be deleted", False, found.status)
            return
        tenant.files.delete(found.result_files[1])
        folder = ground.fleet.home / "adapters" / job

        def left() -> list[str]:
            listed = any(m.id == found.fine_tuned_model for m in tenant.models.list())
            parts = {"listed among the models": listed, "its folder": folder.exists()}
            return [name for name, there in parts.items() if there]

        within(lambda: not left(), 20)
        yield Claim("a deleted result is gone", not left(), ", ".join(left()) or "nothing left")


PART = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n%s\r\n--x--\r\n'
# Codecs that Python knows and that decode no text: they raise what a decoder of text does not.
FORMS = [
    (f"multipart/form-data; boundary=x; charset={charset}", PART % value)
    for charset, value in (("undefined", b"fine-tune"), ("idna", b"xn--a"), ("punycode", b"a-!"))
]


def _form(ground: Ground, secret: str, kind: str, content: bytes) -> int:
    headers = {"authorization": f"Bearer {secret}", "content-type": kind}
    return httpx.post(f"{ground.fleet.url}/v1/files", content=content, headers=headers, timeout=HANG).status_code


def _secrets(ground: Ground) -> Claim:
    planted = "pl4nted-s3cret"
    env = {
        **os.environ,
        "ONWARD_DATABASE_URL": f"postgresql+psycopg://onward:{planted}@127.0.0.1:1/x",
        "ONWARD_REDIS_URL": f"redis://:{planted}@127.0.0.1:1/0",
        "ONWARD_MODELS": models_of(ground.fleet),
        "ONWARD_MODEL": "",  # is wrong: the worker says so
    }
    programs = (
        "from api.settings import Settings; print(repr(Settings()), str(Settings()))",
        "from worker.settings import WorkerSettings; print(repr(WorkerSettings(model='x')))",
        "import sys; from worker.__main__ import main; sys.exit(main())",
    )
    shown = []
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, cwd=Path.cwd(), timeout=HANG
        )
        shown.append(planted in done.stdout + done.stderr)
    told = ", ".join(
        f"{n}: {'shown' if s else 'hidden'}" for n, s in zip(("api", "worker", "error"), shown, strict=True)
    )
    return Claim("passwords are in no text of the settings", not any(shown), told)
