"""`onward up` on a bare home: everything starts, the printed snippet works, SIGTERM stops everything."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.bases import tiny
from tests.waiting import HANG, gone, until

# `onward`, which on a slow machine gives nothing up early.
PATIENT = f"""
from cli.local import servers, stack
stack.API_SECONDS = stack.WORKER_SECONDS = stack.STOP_SECONDS = servers.START_SECONDS = servers.STOP_SECONDS = {HANG}
from cli.main import app
app()
"""


@pytest.fixture
def home():
    """A folder the database's own user can reach."""
    with tempfile.TemporaryDirectory(prefix="onward-up-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def service(home, tmp_path):
    model = tiny("llama", tmp_path / "model")
    env = {name: value for name, value in os.environ.items() if not name.startswith("ONWARD_")}
    log = (tmp_path / "up.log").open("w+")
    command = [sys.executable, "-c", PATIENT, "up", "--home", str(home), "--port", "0", "--model", f"tiny={model}"]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env | {"COLUMNS": "200"})

    def announced() -> bool:
        said = (tmp_path / "up.log").read_text()
        assert process.poll() is None, said
        return "Ctrl-C" in said

    try:
        until(announced, (tmp_path / "up.log").read_text)
        yield process, (tmp_path / "up.log")
    finally:
        process.kill()
        process.wait()
        log.close()


def descendants(pid: int) -> list[int]:
    return [d for child in children(pid) for d in (child, *descendants(child))]


def children(pid: int) -> list[int]:
    """Of the process, in the order in which it began them."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_up_serves_the_snippet_it_prints_and_stops_all_it_started(service, home):
    process, log = service
    said = log.read_text()
    snippet = said[said.index("import time") : said.index("print(job.status")]
    snippet += "print(job.status, job.fine_tuned_model)"
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=HANG)
    assert done.stdout.splitlines()[-1].startswith("succeeded ft:tiny:"), done.stdout + done.stderr

    env = {name: value for name, value in os.environ.items() if not name.startswith("ONWARD_")}
    beside = [sys.executable, "-m", "cli", "jobs", "list", "--json"]
    jobs = json.loads(subprocess.run(beside, env=env | {"ONWARD_HOME": str(home)}, capture_output=True).stdout)
    assert [job["status"] for job in jobs] == ["succeeded"]
    for private in ("demo.key", "service.json"):
        assert stat.S_IMODE((home / private).stat().st_mode) == 0o600

    again = [sys.executable, "-m", "cli", "up", "--home", str(home), "--port", "0", "--model", "tiny=x"]
    second = subprocess.run(again, env=env, capture_output=True, text=True, timeout=HANG)
    assert second.returncode == 1
    assert "already runs" in second.stderr

    started = descendants(process.pid)
    assert len(started) >= 4  # PostgreSQL, Valkey, API, worker
    whole = children(process.pid)
    for name, killed in (("api", whole[-2]), ("worker-tiny", whole[-1])):
        os.kill(killed, signal.SIGKILL)
        until(lambda name=name: f"{name} ended (exit -9" in log.read_text(), log.read_text)
        until(lambda: len(children(process.pid)) == len(whole), log.read_text)
    assert "started again" in log.read_text()
    assert process.poll() is None
    assert set(started) & set(descendants(process.pid)), "the database was not taken down"
    started += descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(HANG) == 0, log.read_text()
    assert all(gone(pid) for pid in started)
    assert not (home / "service.json").exists()
    assert log.read_text().rstrip().endswith("stopped")
