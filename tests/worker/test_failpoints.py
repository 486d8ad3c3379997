"""Deliberate death: at the named point and pass, at once, and never unasked."""

import os
import subprocess
import sys

import pytest

from tests.waiting import HANG
from worker import failpoints

PROGRAM = """
import atexit, sys
from worker import failpoints
atexit.register(print, "cleaned up")
try:
    for i in range(4):
        failpoints.point("a")
        print("a", i, flush=True)
        failpoints.point("d", "always", f"only {i}")
        failpoints.point("b")
finally:
    print("finally", flush=True)
"""


def run(fault: str | None) -> tuple[int, list[str]]:
    """Exit status and lines of a process that passes a, b, a, b, … four times each."""
    env = {key: value for key, value in os.environ.items() if key != "ONWARD_FAULT"}
    if fault is not None:
        env["ONWARD_FAULT"] = fault
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=HANG)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    "fault, passed",
    [("a", 0), ("a:1", 0), ("a:3", 2), ("b", 1), ("b:2", 2), ("d:2:kill:always", 2), ("d:1:kill:only 2", 3)],
)  # a's passes that were survived
def test_a_process_dies_at_its_point_with_no_clean_up(fault, passed):
    assert run(fault) == (137, [f"a {i}" for i in range(passed)])


@pytest.mark.parametrize("fault", [None, "", "c", "a:5"])
def test_a_process_that_does_not_come_to_its_point_lives(fault):
    assert run(fault) == (0, [*(f"a {i}" for i in range(4)), "finally", "cleaned up"])


def test_without_the_variable_a_point_is_silent(monkeypatch, capsys):
    monkeypatch.delenv("ONWARD_FAULT", raising=False)
    for _ in range(3):
        failpoints.point("after_score")
    assert capsys.readouterr() == ("", "")
