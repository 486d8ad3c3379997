"""Children are waited for, explained when they fail, stopped in order, and never outlive their parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.client import Failure
from cli.local.processes import start, wait_ready
from tests.waiting import HANG, gone

SLEEP = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"


def up(log: Path) -> bool:
    return log.exists() and "up" in log.read_text()


def test_a_child_gets_its_environment_and_its_log(tmp_path):
    process = start(
        "child", [sys.executable, "-c", "import os; print(os.environ['WORD'])"], {"WORD": "hello"}, tmp_path
    )
    process.popen.wait(HANG)
    assert not process.alive
    assert process.last_lines() == "hello"


def test_waiting_ends_when_the_child_is_ready(tmp_path):
    process = start("child", [sys.executable, "-c", SLEEP], {}, tmp_path)
    wait_ready(process, lambda: up(process.log), HANG, "starting the child")
    assert process.alive
    process.stop(HANG)
    assert process.popen.returncode == -signal.SIGTERM


def test_a_child_that_ends_while_starting_is_told_with_its_last_words(tmp_path):
    process = start("child", [sys.executable, "-c", "raise SystemExit('no such model')"], {}, tmp_path)
    with pytest.raises(Failure, match=r"exit 1[\s\S]*no such model"):
        wait_ready(process, lambda: False, HANG, "starting the child")


def test_a_child_that_is_never_ready_is_given_up(tmp_path):
    process = start("child", [sys.executable, "-c", SLEEP], {}, tmp_path)
    with pytest.raises(Failure, match="not ready after 1 s"):
        wait_ready(process, lambda: False, 1, "starting the child")
    process.stop(HANG)


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path):
    code = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); print(c.pid); {STUBBORN}"
    process = start("child", [sys.executable, "-c", code], {}, tmp_path)
    wait_ready(process, lambda: process.log.read_text().count("up") == 2, HANG, "starting the child")
    grandchild = next(int(line) for line in process.log.read_text().splitlines() if line.isdigit())
    process.stop(0.5)
    assert process.popen.returncode == -signal.SIGKILL
    assert gone(grandchild)


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    code = f"""
import signal, sys
from pathlib import Path
from cli.local.processes import start
print(start("child", [sys.executable, "-c", {SLEEP!r}], {{}}, Path({str(tmp_path)!r})).popen.pid, flush=True)
signal.pause()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)
