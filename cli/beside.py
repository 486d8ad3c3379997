"""What a running `onward up` writes down for the commands typed beside it, from its first second on. Knows files.

It is in the home as `up.json` for as long as that process lives. A line in the user's own state folder says which homes
there are, so that a command typed in another folder can name the right one.
"""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cli.show import span

UP = "up.json"
State = Literal["loading", "ready", "waiting", "given up"]


class Component(BaseModel):
    """One process of the service. `since` is a Unix time, `died` what was said of its last death."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: State
    since: float
    restarts: int
    died: str | None
    log: str
    pid: int | None


class Up(BaseModel):
    """An `onward up` or `onward demo`: `phase` is what it is doing where it is not ready yet."""

    model_config = ConfigDict(frozen=True)

    pid: int
    born: int | None  # by the kernel's count, so that another process with this number is not taken for it
    base_url: str | None
    phase: str | None
    since: float
    components: tuple[Component, ...] = ()

    def waits_for(self, now: float | None = None) -> str | None:
        """What keeps it from being ready and for how long: "worker-tiny loading, 40 s"; None where it is ready."""
        now = time.time() if now is None else now
        if self.phase is None:
            return None
        late = [f"{c.name} {c.state}, {span(now - c.since)}" for c in self.components if c.state != "ready"]
        return "; ".join(late) or f"{self.phase}, {span(now - self.since)}"


def read(home: Path) -> Up | None:
    """What the `onward up` of this home says of itself; None where none lives."""
    try:
        found = Up.model_validate_json((home / UP).read_text())
    except (OSError, ValidationError):
        return None
    return found if lives(found.pid, found.born) else None


def write(home: Path, up: Up) -> None:
    """Whole or not at all. Nothing in it is secret."""
    scratch = home / f"{UP}.new"
    scratch.write_text(up.model_dump_json(indent=2))
    scratch.replace(home / UP)


def born(pid: int) -> int | None:
    """When the process started, in the kernel's ticks; None where /proc does not tell."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def lives(pid: int, since: int | None) -> bool:
    """Whether that very process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return since is None or born(pid) == since


def register(home: Path) -> None:
    """Note the home where this user's commands look. A state folder that cannot be written is no reason to fail."""
    with suppress(OSError):
        _homes().mkdir(parents=True, exist_ok=True)
        _note(home).write_text(str(home))


def forget(home: Path) -> None:
    with suppress(OSError):
        _note(home).unlink()
    (home / UP).unlink(missing_ok=True)


def elsewhere(home: Path) -> list[Path]:
    """The other homes of this user in which an `onward up` lives; notes of those that died are dropped."""
    found = []
    with suppress(OSError):
        for note in sorted(_homes().iterdir()):
            other = Path(note.read_text())
            if read(other) is None:
                note.unlink(missing_ok=True)
            elif other.resolve() != home.resolve():
                found.append(other)
    return found


def _homes() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "onward" / "homes"


def _note(home: Path) -> Path:
    return _homes() / hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
