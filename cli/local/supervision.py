"""A child process that is started again when it ends, and when that is no use any more. Knows no database."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cli import show
from cli.local.processes import Process
from cli.show import span

CANNOT = 2  # the exit status of a process that could not run here however often it is started
LIVED_SECONDS = 60.0  # who lived for so long did not die of its start
QUICK_DEATHS = 8  # in a row, and then no more


@dataclass
class Supervised:
    """A process, and the pauses between its lives: 1, 2, 4, … 30 s while they are short.

    `begin` starts it; `process` is its newest life. Where it was given up, `given_up` says why.
    """

    name: str
    begin: Callable[[], Process]
    now: Callable[[], float] = time.monotonic
    process: Process = field(init=False)
    quick: int = 0  # deaths in a row soon after the start
    given_up: str | None = None
    _since: float = field(init=False)
    _again_at: float | None = None

    def __post_init__(self) -> None:
        self._start()

    def tend(self) -> None:
        """Start it again where it has ended and its pause is over; to be called a few times a second. Raises nothing
        for a process that dies: it says so, once a death."""
        if self.given_up is not None or self.process.alive:
            return
        if self._again_at is None:
            self._mourn()
        elif self.now() >= self._again_at:
            self._start()

    def stop(self, seconds: float) -> None:
        """As the process's own; it is not started again."""
        self.given_up = self.given_up or "stopped"
        self.process.stop(seconds)

    def _start(self) -> None:
        self.process, self._since, self._again_at = self.begin(), self.now(), None

    def _mourn(self) -> None:
        code = self.process.popen.returncode
        ended = f"{self.name} ended (exit {code})"
        self.process.stop(0)  # what it may have left behind
        self.quick = self.quick + 1 if self.now() - self._since < LIVED_SECONDS else 1
        if code == CANNOT:
            self.given_up = f"{ended}: it cannot run here, and is not started again"
        elif self.quick >= QUICK_DEATHS:
            self.given_up = f"{ended}, the {self.quick}th time in a row soon after its start: it is given up"
        if self.given_up is not None:
            show.err.print(f"{self.given_up}\n{self.process.last_lines()}\nits log is {self.process.log}", markup=False)
            return
        pause = min(30.0, 2.0 ** (self.quick - 1))
        self._again_at = self.now() + pause
        show.err.print(f"{ended}; it is started again in {span(pause)} (log: {self.process.log})", markup=False)
