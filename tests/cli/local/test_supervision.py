"""Who ends is started again, with pauses that grow; who cannot run, or dies of every start, is given up and told."""

import re
import signal
import sys

import pytest

from cli.local import supervision
from cli.local.memory import Memory, kills, memory
from cli.local.processes import Process, start
from cli.local.servers import ServerError
from cli.local.supervision import LIVED_SECONDS, QUICK_DEATHS, SHORT_LIVES, Supervised
from tests.waiting import HANG, until

SLEEP = "import signal; signal.pause()"


@pytest.fixture
def lives(tmp_path):
    """Makes a supervised process that runs this code, on a clock that the test moves, and its lives so far."""
    made: list[Supervised] = []

    def make(code: str, ready: bool = True) -> tuple[Supervised, list[Process], list[float]]:
        begun: list[Process] = []
        clock = [0.0]

        def begin() -> Process:
            begun.append(start("child", [sys.executable, "-c", code], {}, tmp_path))
            return begun[-1]

        made.append(Supervised("child", begin, now=lambda: clock[0], answers=lambda _: ready))
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
    child, begun, clock = lives("raise SystemExit('no more room')", ready=False)
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
        child.tend()
        clock[0] += LIVED_SECONDS
        begun[-1].popen.kill()
        death(child)
        clock[0] += 1
        child.tend()
    assert child.given_up is None
    assert len(begun) == QUICK_DEATHS + 3


def test_one_that_was_ready_did_not_die_of_its_start_and_is_given_more_lives(lives, said):
    child, begun, clock = lives(SLEEP)
    while child.given_up is None:
        child.tend()  # it says that it is ready
        assert child.state == "ready"
        begun[-1].popen.kill()
        death(child)
        clock[0] += 30
        child.tend()
    assert len(begun) == SHORT_LIVES > QUICK_DEATHS
    assert "given up" in said[-1]


def test_one_that_says_it_cannot_is_tried_once_more(lives, said):
    child, begun, clock = lives("print('no such model'); raise SystemExit(2)", ready=False)
    death(child)
    assert "by its own word: no such model" in said[-1]
    assert "again in 1 s" in said[-1]
    clock[0] = 10
    child.tend()
    assert len(begun) == 2
    death(child)
    clock[0] = 1e9
    child.tend()
    assert len(begun) == 2
    assert child.given_up is not None
    assert "cannot run here" in said[-1]
    assert child.told().state == "given up"


def test_a_kill_is_explained_with_the_memory_it_had_and_a_crash_by_its_name(lives, said):
    child, begun, clock = lives(f"kept = bytearray(64 << 20); print('up', flush=True); {SLEEP}")
    until(lambda: "up" in begun[0].last_lines(), "the child holds its memory")
    child.tend()
    begun[0].popen.kill()
    death(child)
    found = re.search(
        r"SIGKILL.*at the last look it held ([0-9.]+)MB \(at most .*B\) and .*B of .*B were free", said[-1]
    )
    assert found is not None, said[-1]
    assert 64 < float(found[1]) < 200
    clock[0] = 10
    child.tend()
    begun[1].popen.send_signal(signal.SIGSEGV)
    death(child)
    assert "exit -11: SIGSEGV, a crash inside a library" in said[-1]
    assert child.told().restarts == 1
    assert "SIGSEGV" in (child.told().died or "")


def test_the_kernels_own_kills_and_a_containers_limit_are_read(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tx\nVmHWM:\t300 kB\nVmRSS:\t200 kB\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\nHugePages_Total: 0\n")
    (tmp_path / "vmstat").write_text("pgfault 1\noom_kill 3\n")
    assert kills(tmp_path) == 3
    assert memory(7, tmp_path, tmp_path) == Memory(200 << 10, 300 << 10, 5000 << 10, 9000 << 10)
    (tmp_path / "memory.max").write_text("1048576")
    (tmp_path / "memory.current").write_text("1000000")
    assert memory(7, tmp_path, tmp_path) == Memory(200 << 10, 300 << 10, 48576, 1048576)
    assert memory(8, tmp_path, tmp_path) is None


def test_a_server_that_does_not_come_back_is_tried_again_with_pauses(said, tmp_path):
    clock, tries = [0.0], []
    first = start("server", [sys.executable, "-c", SLEEP], {}, tmp_path)

    def begin() -> Process:
        tries.append(clock[0])
        if len(tries) < 3:
            raise ServerError("no disk")
        return start("server", [sys.executable, "-c", SLEEP], {}, tmp_path)

    child = Supervised("server", begin, now=lambda: clock[0], first=first)
    first.popen.kill()
    death(child)
    while len(tries) < 3:
        clock[0] += 0.5
        child.tend()
    assert child.state == "ready"
    assert tries == [1.0, 3.0, 7.0]
    assert sum("no disk" in line for line in said) == 2
    child.stop(HANG)


def test_one_that_was_stopped_stays_so(lives, said):
    child, begun, clock = lives(SLEEP)
    child.stop(HANG)
    clock[0] = 1e9
    child.tend()
    assert (len(begun), said) == (1, [])
