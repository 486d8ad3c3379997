"""Ports for processes that must be told one. Knows no process."""

import socket

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
