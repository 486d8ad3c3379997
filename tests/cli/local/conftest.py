"""A real `onward up` in a home of its own, with a tiny base model."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.bases import tiny
from tests.waiting import HANG, until

# `onward`, which on a slow machine gives nothing up early.
PATIENT = f"""
from cli.local import servers, stack
stack.API_SECONDS = stack.WORKER_SECONDS = stack.STOP_SECONDS = servers.START_SECONDS = servers.STOP_SECONDS = {HANG}
from cli.main import app
app()
"""


@dataclass(frozen=True)
class Service:
    process: subprocess.Popen[bytes]
    home: Path
    log: Path
    env: dict[str, str]

    @property
    def said(self) -> str:
        return self.log.read_text()

    def beside(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A command typed beside it."""
        command = [sys.executable, "-m", "cli", *words]
        whole = self.env | {"ONWARD_HOME": str(self.home)} | env
        return subprocess.run(command, env=whole, capture_output=True, text=True, timeout=HANG)

    def announced(self) -> None:
        """Returns once it has printed its snippet."""

        def ready() -> bool:
            assert self.process.poll() is None, self.said
            return "Ctrl-C" in self.said

        until(ready, lambda: self.said)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder the database's own user can reach."""
    with tempfile.TemporaryDirectory(prefix="onward-up-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def up(home: Path, tmp_path: Path) -> Callable[..., Iterator[Service]]:
    """Starts one, with these variables too, and kills it at the end."""

    @contextmanager
    def begun(**more: str) -> Iterator[Service]:
        model = tiny("llama", tmp_path / "model")
        env = {name: value for name, value in os.environ.items() if not name.startswith("ONWARD_")}
        env |= {"COLUMNS": "200", "XDG_STATE_HOME": str(tmp_path / "state"), **more}
        command = [sys.executable, "-c", PATIENT, "up", "--home", str(home), "--port", "0", "--model", f"tiny={model}"]
        with (tmp_path / "up.log").open("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)
        try:
            yield Service(process, home, tmp_path / "up.log", env)
        finally:
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
            process.wait()
            psutil.wait_procs(family, timeout=HANG)  # they end with it, and write into its home until then

    return begun
