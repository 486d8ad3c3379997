"""An upgrade under way, seen by a client that submits and watches all along, and the way back.

Old code is a release's own: unpacked beside this one, run by its own processes.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest
from openai import OpenAI
from sqlalchemy import select

from db.session import sessions
from db.tables import Adapter, Job
from db.tables import Worker as WorkerRow
from migrations.run import current, head, upgrade
from tests.bases import tiny
from tests.ports import free_port
from tests.service.conftest import rows
from tests.service.stage import HASTE
from tests.upgrade.front import Front
from tests.waiting import HANG, until
from worker.adapters import verify

ARCHIVE = Path(__file__).parent / "before-0014.tar.xz"
ROOT = Path(__file__).parents[2]
MODEL = "upgraded"
STEPS = 40
FIRST = """
from db.session import sessions
from db.tenant import keys
from migrations.run import upgrade

upgrade({url!r})
with sessions({url!r}).begin() as session:
    print(keys.create_key(session, keys.create(session, "watcher").id)[1])
"""  # of the release before: ours writes columns that its database does not have


@pytest.fixture(scope="module")
def old_code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@dataclass
class Rig:
    """Processes of either code over one database, broker and home."""

    env: dict[str, str]
    home: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, code: Path, module: str, **env: str) -> subprocess.Popen[bytes]:
        whole = os.environ | HASTE | self.env | {"PYTHONPATH": str(code)} | env
        with (self.home / f"{len(self.started)}-{module}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", module], cwd=code, env=whole, stdout=log, stderr=log)
        self.started.append(process)
        return process

    def api(self, code: Path) -> tuple[subprocess.Popen[bytes], int]:
        port = free_port()
        process = self.start(code, "api", ONWARD_PORT=str(port))

        def ready() -> bool:
            assert process.poll() is None, self.logs()
            return answers(port)

        until(ready, "the API is ready")
        return process, port

    def worker(self, code: Path) -> subprocess.Popen[bytes]:
        process = self.start(code, "worker", ONWARD_MODEL=MODEL, ONWARD_SCORER="torch")

        def ready() -> bool:
            assert process.poll() is None, self.logs()
            with sessions(self.env["ONWARD_DATABASE_URL"]).begin() as session:
                state = select(WorkerRow.state).where(WorkerRow.pid == process.pid)
                return "ready" in session.scalars(state)

        until(ready, "the worker is ready")
        return process

    def logs(self) -> str:
        return "\n".join(p.read_text(errors="replace")[-2000:] for p in sorted(self.home.glob("*.log")))


@pytest.fixture(scope="module")
def rig(old_code, empty_database_url, redis_url, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    env = {
        "ONWARD_DATABASE_URL": empty_database_url,
        "ONWARD_REDIS_URL": redis_url,
        "ONWARD_HOME": str(home),
        "ONWARD_MODELS": json.dumps({MODEL: str(tiny("llama", home))}),
    }
    made = Rig(env, home)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


class Retries(logging.Handler):
    """Counts what the client says of requests that it repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("Retrying request")


class Watcher(threading.Thread):
    """Submits a job, watches it to its end, and so on; every exception of the client is a failed request. The client is
    unmodified: it repeats a request whose kept connection was cut under it, as the old release's API does when it ends
    (`retries` counts that); a repeated submission must not make a second job."""

    def __init__(self, client: OpenAI) -> None:
        super().__init__(daemon=True)
        self.client, self.stop = client, threading.Event()
        self.requests, self.failed, self.jobs = 0, [], []
        self.retries = Retries()

    def run(self) -> None:
        logging.getLogger("openai._base_client").addHandler(self.retries)
        logging.getLogger("openai._base_client").setLevel(logging.INFO)
        train = self.ask(lambda c: c.files.create(file=("rows.jsonl", rows(32)), purpose="fine-tune")).id
        while not self.stop.is_set():
            about = {"steps": STEPS, "batch_size": 4, "rank": 2, "targets": ["q_proj"], "seed": len(self.jobs)}
            about |= {"method": "mezo", "eps": 1e-2, "learning_rate": 1e-2}
            job = self.ask(
                lambda c, a=about: c.fine_tuning.jobs.create(model=MODEL, training_file=train, extra_body={"onward": a})
            )
            if job is not None:
                self.jobs.append(job.id)
                self.watch(job.id)

    def watch(self, job_id: str) -> None:
        while not self.stop.is_set():
            job = self.ask(lambda c: c.fine_tuning.jobs.retrieve(job_id))
            self.ask(lambda c: c.fine_tuning.jobs.list_events(job_id, limit=5))
            if job is not None and job.status in ("succeeded", "failed"):
                return
            time.sleep(0.05)

    def ask(self, what):
        self.requests += 1
        try:
            return what(self.client)
        except Exception as error:
            self.failed.append(repr(error))
            return None

    def goes_on(self, jobs: int = 2) -> None:
        """Wait until so many more jobs have been submitted: the one before the last has then ended."""
        want = len(self.jobs) + jobs
        until(lambda: len(self.jobs) >= want, f"{jobs} more jobs")


def test_no_request_fails_while_the_schema_and_then_the_code_are_replaced(rig, old_code, capsys, monkeypatch):
    url = rig.env["ONWARD_DATABASE_URL"]
    made = subprocess.run(
        [sys.executable, "-c", FIRST.format(url=url)],
        cwd=old_code, env=os.environ | {"PYTHONPATH": str(old_code)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    secret = made.stdout.split()[-1]
    with sessions(url).begin() as session:
        assert current(session.connection()) == "0013"
    old_api, port = rig.api(old_code)
    old_worker = rig.worker(old_code)
    front = Front(port)
    watcher = Watcher(OpenAI(base_url=f"http://127.0.0.1:{front.port}/v1", api_key=secret, timeout=HANG))
    watcher.start()
    try:
        watcher.goes_on()

        upgrade(url)  # expand, while the old code serves
        with sessions(url).begin() as session:
            assert current(session.connection()) == head() != "0013"
        watcher.goes_on()

        new_api, port = rig.api(ROOT)
        front.switch(port)
        ended(old_api)
        new_worker = rig.worker(ROOT)
        ended(old_worker)
        watcher.goes_on()

        back_api, port = rig.api(old_code)  # and back: old code on what the new one wrote
        front.switch(port)
        ended(new_api)
        back_worker = rig.worker(old_code)
        ended(new_worker)
        watcher.goes_on()
        assert back_api.poll() is None
        assert back_worker.poll() is None
    finally:
        watcher.stop.set()
        watcher.join(HANG)
        front.close()
    with capsys.disabled():
        told = f"{watcher.requests} requests, {len(watcher.failed)} failed, {watcher.retries.count} repeated"
        print(f"\nupgrade: {told}, {len(watcher.jobs)} jobs")
    assert watcher.failed == [], rig.logs()
    with sessions(url).begin() as session:
        found = {job.id: job for job in session.scalars(select(Job))}
        adapters = list(session.scalars(select(Adapter)))
    assert set(found) == set(watcher.jobs)  # what was repeated was made once
    finished = [found[x] for x in watcher.jobs[:-1]]  # the last one may have been stopped with the watcher
    assert {job.state for job in finished} == {"succeeded"}
    monkeypatch.setenv("ONWARD_MODELS", rig.env["ONWARD_MODELS"])
    for adapter in (adapters[0], adapters[-1]):
        assert verify.verify(url, rig.home, adapter.id).ok


def ended(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(HANG) in (0, -signal.SIGTERM)


def answers(port: int) -> bool:
    try:
        return bool(urlopen(f"http://127.0.0.1:{port}/readyz", timeout=HANG).status == 200)
    except OSError:
        return False
