"""Child processes of the command line: started with a log file, waited for, stopped in order. Knows no database."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cli.client import Failure
from cli.local.logs import copied
from cli.local.ownership import dies_with_owner
from cli.show import err, span

LAST_SECONDS = 5.0  # for the last words of a child that has ended; what it left behind may hold its output open


@dataclass
class Process:
    """A child in its own session: a Ctrl-C at the terminal reaches only the parent, which stops children in order."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    copier: threading.Thread | None = None  # what writes the log, where the child does not

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def last_lines(self, count: int = 15) -> str:
        if self.copier is not None and not self.alive:
            self.copier.join(LAST_SECONDS)
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL to its whole group after `seconds`. Nothing where it has ended."""
        if self.alive:
            self.popen.terminate()
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                err.print(f"{self.name} did not stop in {span(seconds)}: killed")
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)  # and what it may have left behind
        self.popen.wait()
        if self.copier is not None:
            self.copier.join(LAST_SECONDS)


def start(name: str, command: Sequence[str], env: Mapping[str, str], logs: Path) -> Process:
    """Starts `command` with `env` added to this environment, both outputs appended to logs/<name>.log."""
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name}.log"
    popen = subprocess.Popen(
        list(command),
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=dies_with_owner(signal.SIGTERM),
    )
    assert popen.stdout is not None
    return Process(name, popen, log, copied(popen.stdout, log))


def wait_ready(process: Process, ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Asks `ready` until it says so, with a line that shows time passing. Raises Failure when the process ends first
    or the time is up."""
    begun = time.monotonic()
    with waiting(what) as tick:
        while not ready():
            if not process.alive:
                tail = process.last_lines()
                raise Failure(
                    f"{process.name} ended while starting (exit {process.popen.returncode})\n{tail}", str(process.log)
                )
            if time.monotonic() - begun > seconds:
                raise Failure(f"{process.name} was not ready after {span(seconds)}", f"its log is {process.log}")
            tick(time.monotonic() - begun)
            time.sleep(0.2)


@contextmanager
def waiting(what: str) -> Iterator[Callable[[float], None]]:
    """A spinner with seconds on a terminal; elsewhere one line at the start and one at the end."""
    begun = time.monotonic()
    if err.is_terminal:
        with err.status(f"{what} ...") as status:
            yield lambda elapsed: status.update(f"{what} ... {span(elapsed)}")
    else:
        err.print(f"{what} ...")
        yield lambda _elapsed: None
    err.print(f"{what}: ready in {time.monotonic() - begun:.1f} s")
