"""Processes of the stage: real ones, with logs and metrics, that are killed, stopped and waited for."""

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

from tests.waiting import HANG, state_of, until

# Importing transformers and PEFT takes a worker ten seconds of CPU. A fork server has done it once; what it forks is a
# process of its own from `worker.__main__.main` on.
FORKS = multiprocessing.get_context("forkserver")
PRELOADED = ["worker.process", "worker.oracle.torch_scorer"]
FORKS.set_forkserver_preload(PRELOADED)


def preload_engines() -> None:
    """Engines too are imported once, for who starts many: where nothing was forked yet."""
    FORKS.set_forkserver_preload([*PRELOADED, "worker.serving.open"])


class Child(Protocol):
    """What a started process answers to; subprocess.Popen does."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Forked:
    """A worker out of the fork server: `main()` of `module`."""

    def __init__(self, env: dict[str, str], log: Path, module: str = "worker.__main__") -> None:
        self._process = FORKS.Process(target=_work, args=(env, str(log), module), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, f"process {self.pid} still runs after {timeout} s"
        return code


def _work(env: dict[str, str], log: str, module: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.exit(importlib.import_module(module).main())


def started(module: str, env: dict[str, str], log: Path) -> Child:
    """`python -m MODULE`."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", module], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )


@dataclass
class Process:
    """A child with its log in a file and its metrics on a port."""

    child: Child
    log: Path
    metrics_port: int = 0

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def kill(self) -> None:
        """SIGKILL, also to one that is stopped. Nothing where it has ended: of a forked one that is seen late, the fork
        server reaps it first."""
        with suppress(ProcessLookupError):
            if self.alive:
                self.send(signal.SIGKILL)
        self.child.wait(HANG)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def stopped(self) -> None:
        """Wait until it is stopped, by itself (ONWARD_FAULT) or by a signal that is under way."""

        def stands() -> bool:
            assert self.alive, self.log.read_text()[-3000:]
            return state_of(self.pid) == "T"

        until(stands, "the process is stopped")

    def died(self) -> int:
        """The exit status, once it has ended by itself."""
        return self.child.wait(HANG)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        parsed = (json.loads(x) for x in self.log.read_text(errors="replace").splitlines() if x.startswith("{"))
        return [x for x in parsed if x.get("event") == event]

    def metric(self, name: str) -> float:
        """The sum over all labels of a counter or gauge."""
        text = urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=HANG).read().decode()
        rows = [x for x in text.splitlines() if x.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(x.rpartition(" ")[2]) for x in rows)
