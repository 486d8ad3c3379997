"""What this process has resident, and had at most, as Linux counts it."""

from collections.abc import Mapping
from pathlib import Path


def forget_peak() -> None:
    """Linux counts the most that was resident from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Bytes at most since `forget_peak`."""
    return _status("VmHWM")


def now() -> int:
    """Bytes."""
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    found: Mapping[str, str] = dict(line.split(":", 1) for line in lines)
    return int(found[name].split()[0]) * 1024
