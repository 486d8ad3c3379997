"""What tests wait for, and how long at most: events, and one deadline that only a hang misses. Knows no room."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
HANG = 900.0  # seconds; what takes longer, on any machine beside any load, will not come
AGES = 100 * HANG  # a slice, a lease or a drain that no test lives to see the end of


def until(true: Callable[[], T], what: str | Callable[[], str]) -> T:
    """The first truth that `true` tells. Fails, with what was waited for, where that is a hang."""
    ends = time.monotonic() + HANG
    while not (found := true()):
        assert time.monotonic() < ends, f"not within {HANG:.0f} s: {what() if callable(what) else what}"
        time.sleep(0.02)
    return found


def state_of(pid: int) -> str:
    """The letter of the process's state: T where it is stopped, Z where nobody reaped it; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    """A zombie that nobody has reaped is dead."""
    return state_of(pid) not in ("", "Z")


def gone(pid: int) -> bool:
    """True, once the process has ended."""
    return until(lambda: not alive(pid), f"the end of process {pid}")
