"""The embedded servers of one home folder: started together, found again after a crash. Knows no table.

They are the real PostgreSQL and Valkey with the production drivers: the default differs from production by URL only.
"""

import fcntl
import json
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from cli.local.servers import Postgres, Valkey
from db.security import API, WORKER
from db.session import as_role

log = logging.getLogger(__name__)


class AlreadyRunning(RuntimeError):
    """Another process owns the servers of this home."""


@dataclass(frozen=True)
class Urls:
    """Where the servers answer, in SQLAlchemy's and in redis-py's spelling. They carry the passwords.

    `database_url` is the owner's. `api_url` and `worker_url` are of roles that a migration makes, and that have a
    password once they were given those in `passwords`.
    """

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    api_url: str = field(repr=False)
    worker_url: str = field(repr=False)
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)


class Embedded:
    """One owner at a time: `start` and `stop` once each, from a thread that lives as long as the servers should.

    Data, ports and passwords stay in `home` from one start to the next. On Linux the servers end with their owner,
    even when it is killed. `durable=False` leaves out fsync, for tests.
    """

    def __init__(self, home: Path, durable: bool = True) -> None:
        self.home = home.resolve() / "servers"
        self._durable = durable
        self._lock: TextIO | None = None
        self._postgres: Postgres | None = None
        self._valkey: Valkey | None = None
        self._passwords: dict[str, str] = {}  # of the database's roles

    @property
    def postgres(self) -> Postgres:
        assert self._postgres is not None, "start() first"
        return self._postgres

    @property
    def valkey(self) -> Valkey:
        assert self._valkey is not None, "start() first"
        return self._valkey

    @property
    def urls(self) -> Urls:
        return self.urls_of("postgres")

    def urls_of(self, database: str) -> Urls:
        """The same with another database of this PostgreSQL."""
        owner = self.postgres.url_of(database)
        api, worker = (as_role(owner, role, self._passwords[role]) for role in (API, WORKER))
        return Urls(owner, self.valkey.url, api, worker, self._passwords)

    def start(self) -> Urls:
        """Returns when both servers answer: seconds the first time, then tenths. Raises AlreadyRunning, ServerError."""
        for server in ("postgres", "valkey"):
            (self.home / server).mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.home / "lock")
        try:
            ports, passwords = self._identity()
            self._postgres = Postgres(self.home / "postgres", ports[0], passwords[0], durable=self._durable)
            self._valkey = Valkey(self.home / "valkey", ports[1], passwords[1])
            if not (self._postgres.place() / "data").exists():
                log.info("creating the embedded database in %s", self._postgres.place() / "data")
            self._postgres.start()
            self._valkey.start()
        except BaseException:
            self.stop()
            raise
        log.info("embedded PostgreSQL on port %d and Valkey on port %d, in %s", *ports, self.home)
        return self.urls

    def stop(self) -> None:
        """Stops both in order; data stay. Nothing where nothing runs."""
        for server in (self._valkey, self._postgres):
            if server is not None:
                server.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def restart_postgres(self) -> None:
        """Stops it in order if it runs, and starts it on the same port and data."""
        self.postgres.stop()
        self.postgres.start()

    def kill_postgres(self) -> None:
        """SIGKILL, as a crash: nothing is tidied."""
        self.postgres.kill()

    def restart_valkey(self, flush: bool = False) -> None:
        """Stops it if it runs and starts it on the same port, with `flush` without anything it held."""
        self.valkey.stop()
        if flush:
            self.valkey.forget()
        self.valkey.start()

    def _identity(self) -> tuple[tuple[int, int], tuple[str, str]]:
        """Ports and passwords, kept for the next start; a port that someone else took meanwhile is replaced."""
        file = self.home / "servers.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        passwords = known.get("passwords") or [secrets.token_urlsafe(24) for _ in range(2)]
        self._passwords = {role: secrets.token_urlsafe(24) for role in (API, WORKER)} | known.get("roles", {})
        wanted = known.get("ports") or [0, 0]
        with socket.socket() as first, socket.socket() as second:  # held together, so that they differ
            ports = [_bind(probe, port) for probe, port in zip((first, second), wanted, strict=True)]
        handle, scratch = tempfile.mkstemp(dir=self.home)  # mode 600
        with os.fdopen(handle, "w") as out:
            json.dump({"ports": ports, "passwords": passwords, "roles": self._passwords}, out)
        os.replace(scratch, file)
        return (ports[0], ports[1]), (passwords[0], passwords[1])


def _lock(path: Path) -> TextIO:
    held = path.open("a+")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        owner = held.read().strip()
        held.close()
        raise AlreadyRunning(f"the servers in {path.parent} are owned by process {owner}") from None
    held.truncate(0)
    held.write(str(os.getpid()))
    held.flush()
    return held


def _bind(probe: socket.socket, port: int) -> int:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        probe.bind(("127.0.0.1", 0))
    return int(probe.getsockname()[1])
