"""What the numbers of a journal's row are: losses, slopes, and a hash where the row is not enough to replay. Pure.

A row has each probe's loss, followed by its slope where the method has two `numbers` a probe. Where the method's
`replay` is `snapshots` the row ends with the SHA-256 of the parameters after the step, as DIGEST numbers below 2^BITS,
which float64 holds exactly: the lowest BITS bits first, read as one big-endian integer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from db.contract import methods

DIGEST: Final = 5
BITS: Final = 52


def losses(row: Sequence[float], method: str | None) -> list[float]:
    """The losses in a row of a method of this name, in the order the probes were asked; all numbers where this code
    does not know the method."""
    arm = methods.ARMS.get(method or "")
    if arm is None:
        return list(row)
    measured = row[:-DIGEST] if arm.replay == "snapshots" else row
    return list(measured[:: arm.numbers])


def method_of(spec: Mapping[str, Any] | None) -> str | None:
    """The name of the method in a spec as its row has it, which this code may not be able to read."""
    method = (spec or {}).get("method")
    name = method.get("name") if isinstance(method, Mapping) else None
    return name if isinstance(name, str) else None


def replay_of(spec: Mapping[str, Any] | None) -> str | None:
    """What an adapter of this spec is rebuilt from: `journal` or `snapshots`; None where this code does not know."""
    arm = methods.ARMS.get(method_of(spec) or "")
    return None if arm is None else arm.replay


def hashed(sha256: str) -> tuple[float, ...]:
    """The end of a row: 64 hexadecimal digits as DIGEST numbers, each a whole one below 2^BITS."""
    value = int(sha256, 16)
    return tuple(float(value >> BITS * i & (1 << BITS) - 1) for i in range(DIGEST))


def sha256(row: Sequence[float]) -> str:
    """The hash at the end of a row, 64 hexadecimal digits. Raises ValueError for a row that ends with none."""
    parts = row[-DIGEST:]
    if len(parts) < DIGEST or not all(0 <= x < 1 << BITS and x == int(x) for x in parts):
        raise ValueError("the row ends with no hash")
    value = sum(int(x) << BITS * i for i, x in enumerate(parts))
    if value >> 256:
        raise ValueError("the row ends with no hash")
    return f"{value:064x}"
