"""How much memory a process and this machine have, as Linux tells; nothing where it does not. Knows no component."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes: what a process holds and has held at most, and what the machine, or the container around it, has left and
    has in all."""

    held: int
    peak: int
    free: int
    total: int


def memory(pid: int, proc: Path = PROC, cgroup: Path = CGROUP) -> Memory | None:
    """None where the process is gone or nothing tells."""
    try:
        process, machine = _table(proc / str(pid) / "status"), _table(proc / "meminfo")
        held, total, free = process["VmRSS"], machine["MemTotal"], machine["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return None
    with suppress(OSError, ValueError):  # "max" is no number: the container has no limit of its own
        limit = int((cgroup / "memory.max").read_text())
        free = max(0, min(free, limit - int((cgroup / "memory.current").read_text())))
        total = min(total, limit)
    return Memory(held, max(held, process.get("VmHWM", 0)), free, total)


def kills(proc: Path = PROC) -> int | None:
    """How many processes the kernel has killed for want of memory since it started; None where it does not tell."""
    with suppress(OSError, ValueError):
        for line in (proc / "vmstat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return None


def _table(path: Path) -> dict[str, int]:
    """`Name:  12 kB` a line, in bytes."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}
