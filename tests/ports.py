"""Ports for processes that must be told one. Knows no process."""

import random
import socket
from contextlib import suppress
from pathlib import Path

_kept: list[socket.socket] = []


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody answers, for a server that sets SO_REUSEADDR, as all of them do.

    It stays bound here, without listening, until the tests end: the system gives it to nobody else meanwhile, and a
    child that is told of it can listen there, now or after a restart.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    _kept.append(keeper)
    return int(keeper.getsockname()[1])


def lasting_port() -> int:
    """A free port outside of those that the system gives out itself (Linux), for a container engine: its rules for a
    published port outlive a run that is killed, and would catch another's connections to the same one."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(first // 2, first), 100):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no port below {first} is free")
