"""`onward up` on a bare home: everything starts, the printed snippet works, SIGTERM stops everything."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from cli import beside, client
from tests.waiting import HANG, gone, until


def descendants(pid: int) -> list[int]:
    return [d for child in children(pid) for d in (child, *descendants(child))]


def children(pid: int) -> list[int]:
    """Of the process, in the order in which it began them."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_up_serves_the_snippet_it_prints_and_stops_all_it_started(up, home):
    with up() as service:
        until(lambda: beside.read(home), "it says that it starts")
        starts(service)
        service.announced()
        serves(service)
        walks(service)
        revives(service)
        stops(service)


def walks(service):
    """The walk that Compose's containers and the chart's pods are taken on too."""
    here = client.service(service.home)  # what `up` writes for the commands beside it
    walked = [sys.executable, "-m", "tests.containers.smoke", here["base_url"], here["api_key"]]
    done = subprocess.run(walked, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["base"], found["steps"]) == ("tiny", 20)
    verified = service.beside("adapters", "verify", found["adapter"], "--json")
    assert json.loads(verified.stdout)["sha256"] == found["sha256"]


def starts(service):
    """What is typed too early is told that the service is not ready yet, and in another folder where it is."""
    early = service.beside("jobs", "list")
    assert early.returncode == 1
    assert f"the service in {service.home.resolve()} is still starting: " in early.stderr
    doctor = service.beside("doctor", "--json")
    (found,) = [f for f in json.loads(doctor.stdout)["findings"] if f["part"] == "service"]
    assert (doctor.returncode, found["mark"], "is still starting" in found["found"]) == (0, "warn", True)


def serves(service):
    said = service.said
    snippet = said[said.index("import time") : said.index("print(job.status")]
    snippet += "print(job.status, job.fine_tuned_model)"
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=HANG)
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("succeeded ft:tiny:"), done.stdout + done.stderr
    assert lines.index("Job started") < next(i for i, line in enumerate(lines) if line.startswith("Job succeeded"))

    jobs = json.loads(service.beside("jobs", "list", "--json").stdout)
    assert [job["status"] for job in jobs] == ["succeeded"]
    for private in ("demo.key", "service.json"):
        assert stat.S_IMODE((service.home / private).stat().st_mode) == 0o600
    lost = service.beside("jobs", "list", ONWARD_HOME=str(service.home / "nothing"))
    assert (lost.returncode, f"ONWARD_HOME={service.home.resolve()}" in lost.stderr) == (1, True)

    again = [sys.executable, "-m", "cli", "up", "--home", str(service.home), "--port", "0", "--model", "tiny=x"]
    second = subprocess.run(again, env=service.env, capture_output=True, text=True, timeout=HANG)
    assert second.returncode == 1
    assert "already runs" in second.stderr


def revives(service):
    """The API's and the database's processes, killed; the worker has tests of its own."""
    for name in ("api", "postgres", "valkey"):
        os.kill(component(service.home, name).pid, signal.SIGKILL)

        def again(name=name) -> bool:
            found = component(service.home, name)
            return (found.restarts, found.state) == (1, "ready")

        until(again, lambda: service.said)
        assert f"{name} ended (exit -9: SIGKILL" in service.said
    assert service.process.poll() is None
    assert json.loads(service.beside("jobs", "list", "--json").stdout)[0]["status"] == "succeeded"
    doctor = json.loads(service.beside("doctor", "--json").stdout)["findings"]
    told = {f["found"].partition(" ")[0]: f for f in doctor if f["part"] == "service"}
    for name in ("api", "postgres", "valkey"):
        assert (told[name]["mark"], "restarted 1 times" in told[name]["found"]) == ("warn", True)


def stops(service):
    started = descendants(service.process.pid)
    assert len(started) >= 4  # PostgreSQL, Valkey, API, worker
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(HANG) == 0, service.said
    assert all(gone(pid) for pid in started)
    assert not (service.home / "service.json").exists()
    assert not (service.home / "up.json").exists()
    assert service.said.rstrip().endswith("stopped")
    for name in ("api", "worker-tiny"):
        text = (service.home / "logs" / f"{name}.log").read_text()
        assert '"event": ' in text
        assert "%|" not in text, "a library's bar"


def component(home, name):
    found = beside.read(home)
    assert found is not None
    return next(c for c in found.components if c.name == name)
