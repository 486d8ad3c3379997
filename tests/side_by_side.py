"""`make test`: groups of the tests side by side on two cores, then those that want the machine to themselves.

With arguments of its own, on one core or in little memory it is one pytest over everything. Knows paths, no test.
"""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from cli.local.ownership import dies_with_owner
from tests.capability import LACKS

ROOT = Path(__file__).parents[1]
CORES, GIB = 2, 8  # for two at once: each may hold an engine, a fleet of workers and a database
SILENCE = 60.0  # seconds after which dots are shown that do not fill a line yet
AGREED = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warnings", "errors")  # pytest's order
CLOSING = re.compile(r"=*\s*((?:\d+ [a-z]+(?:, )?)+|no tests ran) in [\d.]+s\b.*")
SECTION = re.compile(r"=+ (ERRORS|FAILURES|warnings summary|short test summary info|slowest .*) =+$|!!+ .* !!+$")


class Group(NamedTuple):
    """The tests of one pytest: what lies in `paths`, without what another group names in or as one of them."""

    name: str
    paths: tuple[str, ...]


# The longest first (10, 8, 8 and 4 minutes on 2 cores): a core that is free takes the next.
# What is in no other group is in `rest`.
BESIDE = (
    Group("worker", ("tests/worker",)),
    Group("service", ("tests/service",)),
    Group("rest", ("tests",)),
    Group("api", ("tests/api",)),
)
# Storms, kills, whole services and what measures seconds: last, and with nobody beside them.
ALONE = Group(
    "alone",
    (
        "tests/chaos",
        "tests/cli/local",
        "tests/upgrade",
        "tests/api/load",
        "tests/service/test_kills.py",
        "tests/service/test_leases.py",
        "tests/service/test_outages.py",
        "tests/db/worker/test_journal.py",
    ),
)


@dataclass
class Run:
    """A pytest over a group: `held` is what it says once its tests are over, for the end, unmixed with the others'."""

    group: Group
    process: subprocess.Popen[bytes]
    line: bytes = b""
    held: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    closing: str = ""

    def take(self, data: bytes) -> None:
        *lines, self.line = (self.line + data).split(b"\n")
        for line in lines:
            self.say(line)

    def say(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if found := CLOSING.fullmatch(text):
            self.closing = found[1]
        if LACKS in text:
            self.lacks.append(text)
        if self.held or SECTION.match(text):
            self.held.append(text)
        elif text:
            print(f"{self.group.name:>7} | {text}", flush=True)

    def flush(self) -> None:
        if self.line and not self.held:
            self.say(self.line)
            self.line = b""

    def end(self) -> int:
        """Its exit status, once it has ended; what it held is printed."""
        self.take(b"\n")
        status = self.process.wait()
        self.process.stdout and self.process.stdout.close()
        print(*self.held, f"{self.group.name:>7} | ended with status {status}", sep="\n", flush=True)
        return status


def arguments(group: Group, groups: Iterable[Group]) -> list[str]:
    """The paths of the group, and those of others in it to leave out."""
    inside = {path for other in groups if other != group for path in other.paths}
    return [*group.paths, *(f"--ignore={path}" for path in sorted(inside) if within(path, group.paths))]


def within(path: str, folders: Iterable[str]) -> bool:
    return any(Path(folder) in Path(path).parents for folder in folders)


def total(runs: Iterable[Run]) -> str:
    """What all closing lines say together, in pytest's words."""
    counted: Counter[str] = Counter()
    for run in runs:
        for number, what in re.findall(r"(\d+) ([a-z]+)", run.closing):
            counted[{"warning": "warnings", "error": "errors"}.get(what, what)] += int(number)
    return ", ".join(f"{counted[what]} {what}" for what in AGREED if counted[what]) or "no tests ran"


def lacking(runs: Iterable[Run]) -> list[str]:
    """What this processor lacks, as tests/capability.py counts it, over all groups."""
    counted: Counter[str] = Counter()
    for line in (line for run in runs for line in run.lacks):
        number, skipped, why = line.partition(f" skipped, {LACKS}")
        if skipped and number.isdigit():
            counted[why] += int(number)
    return [f"{number} skipped, {LACKS}{why}" for why, number in counted.most_common()]


def interruptible() -> Callable[[], None]:
    """For Popen's preexec_fn: SIGINT is heard, in a shell's background too, and comes when this process is killed."""
    ends_with_us = dies_with_owner(signal.SIGINT)

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if ends_with_us is not None:
            ends_with_us()

    return prepare


class Runs:
    """All groups, as many at once as there is room for. Whatever ends this process ends the pytests that it started:
    they are told as Ctrl-C would tell them, so that they stop their servers, and waited for."""

    def __init__(self, options: Sequence[str], root: Path) -> None:
        self.options, self.root = options, root
        self.going: list[Run] = []
        self.over: list[tuple[Run, int]] = []
        self._heard = selectors.DefaultSelector()

    def play(self, groups: Sequence[Group], everyone: Sequence[Group], at_once: int) -> None:
        waiting = list(groups)
        while waiting or self.going:
            while waiting and len(self.going) < at_once:
                self._start(waiting.pop(0), everyone)
            self._listen()

    def stop(self) -> None:
        """Returns when none runs any more. A second interrupt kills them."""
        try:
            for run in self.going:
                run.process.send_signal(signal.SIGINT)
            while self.going:
                self._listen()
        finally:
            for run in self.going:
                run.process.kill()

    def _start(self, group: Group, everyone: Sequence[Group]) -> None:
        command = [str(Path(sys.executable).with_name("pytest")), *self.options, *arguments(group, everyone)]
        # A session of its own, so that Ctrl-C comes once and from here; and no terminal, whose width tests would see.
        process = subprocess.Popen(
            command,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=interruptible(),
        )
        assert process.stdout is not None
        self.going.append(run := Run(group, process))
        self._heard.register(process.stdout, selectors.EVENT_READ, run)
        print(f"{group.name:>7} | begins", flush=True)

    def _listen(self) -> None:
        ready = self._heard.select(SILENCE)
        for key, _ in ready:
            run: Run = key.data
            if data := os.read(key.fd, 1 << 16):
                run.take(data)
            else:
                self._heard.unregister(key.fileobj)
                self.over.append((run, run.end()))
                self.going.remove(run)
        if not ready:
            for run in self.going:
                run.flush()


def played(options: Sequence[str], beside: Sequence[Group] = BESIDE, alone: Group = ALONE, root: Path = ROOT) -> int:
    """Runs all; the last line is pytest's own for all together. The exit status is that of the worst."""
    began, runs, everyone = time.monotonic(), Runs(options, root), (*beside, alone)
    for told in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(told, signal.default_int_handler)
    interrupted = False
    try:
        runs.play(beside, everyone, CORES)
        runs.play([alone], everyone, 1)
    except KeyboardInterrupt:
        interrupted = True
        runs.stop()
    ended = [run for run, _ in runs.over]
    for run, status in runs.over:
        print(f"{run.group.name:>7} | {run.closing or f'no closing line, status {status}'}")
    print(*lacking(ended), sep="\n", end="\n" if lacking(ended) else "")
    seconds = time.monotonic() - began
    print(f"{total(ended)} in {seconds:.2f}s ({timedelta(seconds=int(seconds))})", flush=True)
    return 2 if interrupted else max(status if status >= 0 else 1 for _, status in runs.over)


def room() -> bool:
    """Whether two can run here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores >= CORES and os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >= GIB << 30


def main(options: Sequence[str]) -> int:
    if [*options[:1]] != ["-m"] or len(options) != 2 or not room():
        pytest = str(Path(sys.executable).with_name("pytest"))
        os.execv(pytest, [pytest, *options])
    return played(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
