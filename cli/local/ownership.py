"""Whose a child process is, what it may reach, and what a killed owner left behind. Knows no particular server."""

import ctypes
import hashlib
import importlib.util
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
LEFTOVER_SECONDS = 20.0
REFUGE = Path("/var/lib/onward")
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Identity:
    uid: int
    gid: int

    @property
    def popen(self) -> dict[str, Any]:
        """Arguments of subprocess that make a child of root run as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def identity(name: str) -> Identity:
    """The system user `name`, which must exist: none is ever added."""
    entry = pwd.getpwnam(name)
    return Identity(entry.pw_uid, entry.pw_gid)


def packaged_folder(package: str) -> Path:
    """The folder of an installed package, without importing it. Raises FileNotFoundError."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {package} is not installed: pip install 'onward[embedded]'")
    return Path(spec.origin).parent


def reachable(path: Path, uid: int) -> bool:
    """Whether the user can come to `path`: every folder above it lets its owner or everyone pass."""
    for folder in path.resolve().parents:
        found = folder.stat()
        needed = stat.S_IXUSR if found.st_uid == uid else stat.S_IXOTH
        if not found.st_mode & needed:
            return False
    return True


def refuge_of(home: Path) -> Path:
    """Where `refuge` is, made or not."""
    return REFUGE / hashlib.sha256(str(home).encode()).hexdigest()[:16]


def refuge(home: Path) -> Path:
    """A folder outside of root's own for what an unprivileged server must reach, always the same for `home`."""
    folder = refuge_of(home)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def dies_with_owner(end: signal.Signals) -> Callable[[], None] | None:
    """For Popen's preexec_fn: the child gets `end` when the thread that starts it ends, however that happens.

    Linux only; elsewhere a killed owner's servers live on until the next start finds them.
    """
    if sys.platform != "linux":
        return None
    owner = os.getpid()

    def prepare() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(end))
        if os.getppid() != owner:  # it died before the line above
            os._exit(1)

    return prepare


def end_leftover(pid_file: Path, mark: Path, end: signal.Signals) -> None:
    """Ends the process that a pid file names, if its command line has `mark` in it, and removes the file."""
    try:
        pid = int(pid_file.read_text().split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        pid = 0
    deadline = time.monotonic() + LEFTOVER_SECONDS
    signals = [signal.SIGKILL, end]
    while pid > 0 and str(mark) in _command_line(pid):
        if len(signals) == 2 or (signals and time.monotonic() > deadline):
            with suppress(ProcessLookupError):
                os.kill(pid, signals.pop())
        time.sleep(0.05)
    pid_file.unlink(missing_ok=True)


def _command_line(pid: int) -> str:
    """Empty for a process that has ended, a zombie among them."""
    if Path("/proc/self/cmdline").exists():
        with suppress(FileNotFoundError, ProcessLookupError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    return subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout
