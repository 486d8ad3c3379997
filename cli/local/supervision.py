"""A child process that is started again when it ends, and when that is no use any more. Knows no database."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cli import show
from cli.beside import Component, State
from cli.client import Failure
from cli.local.memory import Memory, kills, memory
from cli.local.processes import Process, waiting
from cli.local.servers import ServerError
from cli.show import span

CANNOT = 2  # the exit status of a process that says itself that it cannot run here
# A worker's self-check fails by chance at about one start in 165: twice in a row is no chance any more.
CANNOT_TIMES = 2
LIVED_SECONDS = 60.0  # who lived for so long did not die of its start
QUICK_DEATHS = 8  # in a row, of lives that were never ready; then no more
SHORT_LIVES = 40  # in a row, of lives that were: a job that kills its worker is set aside by the service long before
LONGEST_PAUSE = 30.0
MEANING = {
    signal.SIGKILL: "killed from outside",
    signal.SIGTERM: "told to end from outside",
    signal.SIGILL: "an instruction that this processor does not have",
    signal.SIGSEGV: "a crash inside a library",
    signal.SIGBUS: "a crash inside a library, or a disk or shared memory that is full",
    signal.SIGABRT: "a library gave up",
}


@dataclass
class Supervised:
    """A process, and the pauses between its lives: 1, 2, 4, … 30 s while they are short.

    `begin` starts it (a ServerError is one more death) and `answers` says when a life is ready (None: as soon as it has
    begun). `first` is its first life where that has begun already; `process` is the newest. Where it was given up,
    `given_up` says why.
    """

    name: str
    begin: Callable[[], Process]
    now: Callable[[], float] = time.monotonic
    answers: Callable[[Process], bool] | None = None
    first: Process | None = None
    process: Process = field(init=False)
    restarts: int = 0
    quick: int = 0  # deaths in a row soon after the start
    given_up: str | None = None
    died: str | None = None  # what was said of the last death
    ready: bool = False
    changed: float = field(init=False)  # Unix time of the last change of `state`
    _since: float = field(init=False)
    _again_at: float | None = None
    _unready: int = 0  # of the quick ones, in a row: those that were never ready
    _unable: int = 0  # ended as CANNOT, in a row
    _memory: Memory | None = None  # when last looked at
    _kills: int | None = None  # of the kernel, when this life began

    def __post_init__(self) -> None:
        self._began(self.first or self.begin())

    @property
    def state(self) -> State:
        if self.given_up is not None:
            return "given up"
        return "waiting" if self._again_at is not None else "ready" if self.ready else "loading"

    def told(self) -> Component:
        pid = self.process.popen.pid if self.process.alive else None
        log = str(self.process.log)
        return Component(
            name=self.name,
            state=self.state,
            since=self.changed,
            restarts=self.restarts,
            died=self.died,
            log=log,
            pid=pid,
        )

    def tend(self) -> None:
        """Start it again where it has ended and its pause is over; to be called a few times a second. Raises nothing
        for a process that dies: it says so, once a death."""
        if self.given_up is not None:
            return
        if self._again_at is not None:
            if self.now() >= self._again_at:
                self._again()
        elif not self.process.alive:
            self._mourn(*ended(self.process, self._memory, self._kills))
        else:
            self._memory = memory(self.process.popen.pid) or self._memory
            if not self.ready and (self.answers is None or self.answers(self.process)):
                self.ready, self.changed = True, time.time()

    def stop(self, seconds: float) -> None:
        """As the process's own; it is not started again."""
        self.given_up = self.given_up or "stopped"
        self.process.stop(seconds)

    def _began(self, process: Process) -> None:
        self.process, self._since, self._again_at = process, self.now(), None
        self.ready, self.changed = self.answers is None, time.time()
        self._memory, self._kills = None, kills()

    def _again(self) -> None:
        self.restarts += 1
        try:
            self._began(self.begin())
        except ServerError as error:
            self._since = self.now()
            self._mourn(None, str(error))

    def _mourn(self, code: int | None, how: str) -> None:
        if self.process.popen.poll() is not None:
            self.process.stop(0)  # what it may have left behind
        short = self.now() - self._since < LIVED_SECONDS
        self.quick = self.quick + 1 if short else 1
        self._unready = 0 if self.ready else self._unready + 1
        self._unable = self._unable + 1 if code == CANNOT else 0
        self.ready, self.changed, self.died = False, time.time(), f"{show.when(time.time())}: {how}"
        if self._unable >= CANNOT_TIMES:
            self.given_up = f"{self.name} {how}, and again: it cannot run here, and is not started any more"
        elif self._unready >= QUICK_DEATHS or self.quick >= SHORT_LIVES:
            times = max(self._unready, self.quick)
            self.given_up = f"{self.name} {how}, the {times}th time in a row soon after its start: it is given up"
        if self.given_up is not None:
            said = f"{self.given_up}\n{self.process.last_lines()}\nits log is {self.process.log}; the others go on"
            show.err.print(said, markup=False, soft_wrap=True)
            return
        pause = min(LONGEST_PAUSE, 2.0 ** (self.quick - 1))
        self._again_at = self.now() + pause
        said = f"{self.name} {how}; it is started again in {span(pause)} (log: {self.process.log})"
        show.err.print(said, markup=False, soft_wrap=True)


def ended(process: Process, last: Memory | None, kills_before: int | None) -> tuple[int, str]:
    """The exit status and what it means, with the memory that a killed process had when it was `last` looked at."""
    code = process.popen.wait()
    if code == CANNOT:
        said = process.last_lines(1).strip() or "its log is empty"
        return code, f"ended (exit {code}) by its own word: {said}"
    if code >= 0:
        return code, f"ended (exit {code})"
    try:
        sign = signal.Signals(-code)
    except ValueError:
        return code, f"ended (exit {code})"
    said = f"{sign.name}, {MEANING.get(sign, 'a signal')}"
    if sign is signal.SIGKILL:
        now = kills()
        known = kills_before is not None and now is not None
        if known and now != kills_before:
            said += ", and the kernel killed for want of memory meanwhile"
        else:
            said += ": somebody's kill -9" if known else ": somebody's kill -9, or the kernel for want of memory"
        if last is not None:
            said += (
                f"; at the last look it held {show.size(last.held, 'B')} (at most {show.size(last.peak, 'B')}) and "
                f"{show.size(last.free, 'B')} of {show.size(last.total, 'B')} were free"
            )
    return code, f"ended (exit {code}: {said})"


def wait_until_ready(child: Supervised, seconds: float, what: str, tend: Callable[[], None]) -> None:
    """At the start of the whole service: tends until `child` is ready. One that a signal ended, or that said itself
    that it cannot run, is tried again; any other end is told at once. Raises Failure, also when the time is up."""
    begun = time.monotonic()
    with waiting(what) as tick:
        while not child.ready:
            code = child.process.popen.poll()
            if child.given_up is None and code is not None and code >= 0 and code != CANNOT:
                lines = child.process.last_lines()
                raise Failure(f"{child.name} ended while starting (exit {code})\n{lines}", str(child.process.log))
            tend()
            if child.given_up is not None:
                raise Failure(child.given_up, f"its log is {child.process.log}")
            if time.monotonic() - begun > seconds:
                raise Failure(f"{child.name} was not ready after {span(seconds)}", f"its log is {child.process.log}")
            tick(time.monotonic() - begun)
            time.sleep(0.2)
