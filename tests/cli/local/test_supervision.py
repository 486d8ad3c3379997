"""Who ends is started again, with pauses that grow; who cannot run, or dies of every start, is given up and told."""

import sys

import pytest

from cli.local import supervision
from cli.local.processes import Process, start
from cli.local.supervision import LIVED_SECONDS, QUICK_DEATHS, Supervised
from tests.waiting import HANG

SLEEP = "import signal; signal.pause()"


@pytest.fixture
def lives(tmp_path):
    """Makes a supervised process that runs this code, on a clock that the test moves, and its lives so far."""
    made: list[Supervised] = []

    def make(code: str) -> tuple[Supervised, list[Process], list[float]]:
        begun: list[Process] = []
        clock = [0.0]

        def begin() -> Process:
            begun.append(start("child", [sys.executable, "-c", code], {}, tmp_path))
            return begun[-1]

        made.append(Supervised("child", begin, now=lambda: clock[0]))
        return made[-1], begun, clock

    yield make
    for one in made:
        one.stop(HANG)


@pytest.fixture
def said(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(supervision.show.err, "print", lambda line, **_: lines.append(line))
    return lines


def death(child: Supervised) -> None:
    child.process.popen.wait(HANG)
    child.tend()


def test_one_that_was_killed_is_started_again_after_a_pause_and_told_once(lives, said):
    child, begun, clock = lives(SLEEP)
    child.tend()
    assert len(begun) == 1
    clock[0] = 2 * LIVED_SECONDS
    begun[0].popen.kill()
    death(child)
    child.tend()
    assert len(begun) == 1, "not at once"
    assert [("exit -9" in line, "again in 1 s" in line) for line in said] == [(True, True)]
    clock[0] += 1
    child.tend()
    assert len(begun) == 2
    assert child.process.alive


def test_pauses_grow_while_lives_are_short_and_many_in_a_row_are_the_end(lives, said):
    child, begun, clock = lives("raise SystemExit('no more room')")
    pauses = []
    while child.given_up is None:
        death(child)
        before, count = clock[0], len(begun)
        while child.given_up is None and len(begun) == count:
            clock[0] += 1
            child.tend()
        pauses.append(clock[0] - before)
    assert pauses[:-1] == [1, 2, 4, 8, 16, 30, 30]
    assert len(begun) == QUICK_DEATHS
    assert "given up" in said[-1]
    assert "no more room" in said[-1]
    child.tend()
    assert len(begun) == QUICK_DEATHS


def test_a_long_life_is_a_new_beginning(lives, said):
    child, begun, clock = lives(SLEEP)
    for _ in range(QUICK_DEATHS + 2):
        clock[0] += LIVED_SECONDS
        begun[-1].popen.kill()
        death(child)
        clock[0] += 1
        child.tend()
    assert child.given_up is None
    assert len(begun) == QUICK_DEATHS + 3


def test_one_that_cannot_compute_here_is_not_started_again(lives, said):
    child, begun, clock = lives("raise SystemExit(2)")
    death(child)
    clock[0] = 1e9
    child.tend()
    assert len(begun) == 1
    assert child.given_up is not None
    assert "cannot run here" in said[-1]


def test_one_that_was_stopped_stays_so(lives, said):
    child, begun, clock = lives(SLEEP)
    child.stop(HANG)
    clock[0] = 1e9
    child.tend()
    assert (len(begun), said) == (1, [])
