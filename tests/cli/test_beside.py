"""Commands typed beside a service that starts, that lost a part, or that runs in another folder."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import beside, client
from cli.beside import Component, Up
from tests.cli.conftest import complaint
from tests.waiting import HANG


@pytest.fixture(autouse=True)
def own_state(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def component(name: str, state: str, **more: object) -> Component:
    known = {"name": name, "state": state, "since": time.time() - 40, "restarts": 0, "died": None, "pid": 1}
    return Component.model_validate(known | {"log": f"/logs/{name}.log"} | more)


def told(home, phase: str | None, *components: Component, **more: object) -> Up:
    """As an `onward up` in this process would write it."""
    up = Up(
        pid=os.getpid(), born=beside.born(os.getpid()), base_url="http://127.0.0.1:1/v1", phase=phase,
        since=time.time() - 7, components=components,
    )  # fmt: skip
    beside.write(home, up.model_copy(update=more))
    return up


@pytest.fixture
def alone(shell, monkeypatch):
    """A command with nothing but its home to go by."""
    for name in ("ONWARD_DATABASE_URL", "ONWARD_REDIS_URL", "ONWARD_MODELS"):
        monkeypatch.delenv(name)
    return shell


def service_of(result) -> list[dict[str, str]]:
    return [f for f in json.loads(result.stdout)["findings"] if f["part"] == "service"]


def test_a_service_that_is_still_starting_says_so_and_for_how_long(alone, tmp_path):
    told(tmp_path, "starting API and workers", component("api", "ready"), component("worker-tiny", "loading"))
    said = complaint(alone("jobs", "list", ok=False))
    assert re.search(r"is still starting: worker-tiny loading, 4\d s", said)
    assert "is still starting" in complaint(alone("tenants", "list", ok=False))
    (found,) = service_of(alone("doctor", "--json"))
    assert (found["mark"], "still starting: worker-tiny loading, 4" in found["found"]) == ("warn", True)
    told(tmp_path, "migrating the database")
    assert "still starting: migrating the database, " in complaint(alone("jobs", "list", ok=False))


def test_a_part_that_is_away_is_named_with_its_last_death(alone, tmp_path, monkeypatch):
    died = "2026-01-01 00:00:00: ended (exit -9: SIGKILL)"
    lost = component("api", "waiting", died=died, restarts=3)
    told(tmp_path, None, lost, component("worker-tiny", "given up", died=died))
    monkeypatch.setenv("ONWARD_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("ONWARD_API_KEY", "sk-x")
    said = complaint(alone("jobs", "list", ok=False))
    assert "api is waiting" in said
    assert "SIGKILL" in said
    result = alone("doctor", "--json", ok=False)
    api, worker = service_of(result)
    assert (api["mark"], "restarted 3 times" in api["found"]) == ("warn", True)
    assert (worker["mark"], "given up" in worker["found"], "/logs/worker-tiny.log" in worker["todo"]) == (
        "fail", True, True,
    )  # fmt: skip


def test_a_whole_service_is_fine(alone, tmp_path):
    told(tmp_path, None, component("api", "ready"))
    (found,) = service_of(alone("doctor", "--json", ok=False))  # there is no database beside it
    assert (found["mark"], str(os.getpid()) in found["found"]) == ("ok", True)


def test_a_service_in_another_folder_is_named(alone, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    assert "onward up" in complaint(alone("jobs", "list", ok=False))
    beside.register(other)
    told(other, None)
    assert f"ONWARD_HOME={other}" in complaint(alone("jobs", "list", ok=False))
    assert f"ONWARD_HOME={other}" in complaint(alone("tenants", "list", ok=False))
    (found,) = service_of(alone("doctor", "--json", ok=False))
    assert f"ONWARD_HOME={other}" in found["todo"]
    beside.forget(other)
    assert beside.elsewhere(tmp_path) == []


def test_what_a_killed_service_left_behind_is_not_believed(alone, tmp_path):
    told(tmp_path, "starting", born=1)  # another process has that number now
    assert beside.read(tmp_path) is None
    assert "still starting" not in complaint(alone("jobs", "list", ok=False))
    beside.register(tmp_path)
    assert beside.elsewhere(tmp_path / "x") == []


def test_no_library_draws_bars_once_the_command_line_is_imported(tmp_path):
    code = "from tests.bases import tiny; from pathlib import Path; tiny('llama', Path('{}'))"
    env = {name: value for name, value in os.environ.items() if "PROGRESS" not in name and "TQDM" not in name}

    def bars(name: str, start: str) -> bool:
        command = [sys.executable, "-c", start + code.format(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=HANG)
        assert done.returncode == 0, done.stderr
        return "%|" in done.stderr

    assert bars("without", ""), "a bar must be drawn for this test to say anything"
    assert not bars("with", "import cli; ")


def test_a_home_that_this_user_may_not_read_is_said_and_not_a_traceback(tmp_path, monkeypatch):
    """Root may read everything, so what the kernel would answer others is given here."""

    def refused(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(client.Failure, match=r"service\.json cannot be read by this user"):
        client.service(tmp_path)
