"""What this process tries to reach, and how long it is prepared to wait for it: counted, not timed. Knows no server."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Attempts:
    """`connections` has the socket's timeout (seconds; inf for none) of each try at an address, `names` the lookups of
    host names, `pauses` the sleeps in between (seconds); of all threads."""

    address: Any
    connections: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """What they cost at most where nobody answers."""
        return sum(self.connections) + sum(self.pauses)


_open: list[Attempts] = []


@contextmanager
def attempts(address: Any) -> Iterator[Attempts]:
    """Those at `address` (as given to connect) while the block runs."""
    found = Attempts(address)
    _open.append(found)
    try:
        yield found
    finally:
        _open.remove(found)


def _heard(event: str, args: tuple[Any, ...]) -> None:
    for found in _open:
        if event == "socket.connect" and args[1] == found.address:
            timeout = args[0].gettimeout()
            found.connections.append(math.inf if timeout is None else timeout)
        elif event == "socket.getaddrinfo":
            found.names.append(args[0])
        elif event == "time.sleep":
            found.pauses.append(args[0])


sys.addaudithook(_heard)  # there is no way to take it back; it is idle while nothing is open
