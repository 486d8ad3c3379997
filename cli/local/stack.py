"""The whole service on one machine: servers, migration, API and a worker, started in order and stopped in reverse."""

import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from cli import beside, show
from cli.client import SERVICE, Failure, service
from cli.local import receipt_key
from cli.local.board import Board
from cli.local.embedded import AlreadyRunning, Embedded, Urls
from cli.local.logs import set_aside
from cli.local.processes import Process, start, waiting
from cli.local.servers import Server, ServerError
from cli.local.supervision import Supervised, wait_until_ready
from db.contract.tokens import base_model
from db.session import sessions
from db.tables import Worker
from migrations.roles import set_passwords
from migrations.run import upgrade

API_SECONDS, WORKER_SECONDS, STOP_SECONDS = 60.0, 300.0, 30.0
BESIDE = {"ONWARD_SCORER": "torch", "ONWARD_ONLY_AUTOGRAD": "true"}  # of a worker that an engine's stands beside


@dataclass(frozen=True)
class Stack:
    """A running service. `models` maps public names to folders or hub ids; the URLs are the owner's, for operators, and
    those of the roles that its processes log in as."""

    home: Path
    base_url: str
    urls: Urls
    models: Mapping[str, str]
    processes: tuple[Supervised, ...]  # the API first
    board: Board

    @property
    def database_url(self) -> str:
        return self.urls.database_url

    @property
    def redis_url(self) -> str:
        return self.urls.redis_url

    @property
    def sessions(self) -> sessionmaker[Session]:
        return sessions(self.database_url)

    def tend(self) -> None:
        """Start again what has ended; to be called a few times a second. What was given up leaves the others running.
        Raises Failure where API and workers all were."""
        self.board.tend()
        if all(process.given_up is not None for process in self.processes):
            raise Failure("API and workers were all given up", f"their logs are in {self.home / 'logs'}")

    def insist(self) -> None:
        """The same for whoever needs all of it. Raises Failure where any component was given up."""
        self.tend()
        for process in self.board.children:
            if process.given_up is not None:
                raise Failure(process.given_up, f"its log is {process.process.log}")

    def publish(self, api_key: str | None = None) -> None:
        """Writes what the commands typed beside this service need, readable by its owner only."""
        known = {
            "pid": os.getpid(),
            "base_url": self.base_url,
            "api_key": api_key,
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "models": dict(self.models),
        }
        private(self.home / SERVICE, json.dumps(known, indent=2))


def private(path: Path, content: str) -> None:
    """Writes `content` to `path`, mode 600 from the first byte."""
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(content)
    scratch.replace(path)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does: with everything stopped in order."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def running(home: Path, models: Mapping[str, str], port: int, autograd: bool = False) -> Iterator[Stack]:
    """The service on `port` (0: a free one), for as long as the context lasts. Each of `models` gets a worker, and with
    `autograd` one with derivatives beside it, which has the weights once more."""
    with ExitStack() as started:
        home.mkdir(parents=True, exist_ok=True)
        _alone(home)
        board = started.enter_context(Board(home))
        started.callback((home / SERVICE).unlink, missing_ok=True)
        os.environ["ONWARD_HOME"] = str(home)  # what this process asks of itself (verify) is this service too
        base_url = f"http://127.0.0.1:{_free(port)}"
        board.begin("starting PostgreSQL and Valkey", f"{base_url}/v1")
        urls = started.enter_context(_servers(home, board))
        env = {
            # Theirs alone, for as long as they run: nothing that is kept depends on it.
            "ONWARD_SERVE_SECRET": os.environ.get("ONWARD_SERVE_SECRET") or secrets.token_hex(32),
            "ONWARD_HOME": str(home),
            "ONWARD_REDIS_URL": urls.redis_url,
            "ONWARD_MODELS": json.dumps(dict(models)),
            "ONWARD_HOST": "127.0.0.1",
            "ONWARD_PORT": base_url.rpartition(":")[2],
            "PYTHONUNBUFFERED": "1",
        }
        board.begin("migrating the database")
        with waiting("migrating the database"):
            upgrade(urls.database_url)
            set_passwords(urls.database_url, urls.passwords)

        def run(name: str, module: str, extra: Mapping[str, str], answers: Callable[[Process], bool]) -> Supervised:
            set_aside(home / "logs" / f"{name}.log")  # of an earlier service; lives of this one share it
            command = [sys.executable, "-m", module]
            child = Supervised(name, lambda: start(name, command, {**env, **extra}, home / "logs"), answers=answers)
            started.callback(child.stop, STOP_SECONDS)
            board.children.append(child)
            return child

        # There is no other process for clients to go to: no drain.
        signs, trusts = receipt_key.of_home(home)
        of_api = {"ONWARD_DATABASE_URL": urls.api_url, "ONWARD_DRAIN_SECONDS": "0", **trusts}
        api = run("api", "api", of_api, lambda _: _answers(f"{base_url}/readyz"))
        bound = {"ONWARD_DATABASE_URL": urls.worker_url, "ONWARD_SERVE_ADDRESS": "127.0.0.1", **signs}

        def ready(process: Process) -> bool:
            return _ready(urls.database_url, process.popen.pid)

        workers = {name: run(f"worker-{name}", "worker", bound | {"ONWARD_MODEL": name}, ready) for name in models}
        beside = {name: bound | BESIDE | {"ONWARD_MODEL": name} for name in models if autograd and _plain(name, models)}
        torch = {name: run(f"worker-{name}-autograd", "worker", env, ready) for name, env in beside.items()}
        board.begin("starting API and workers")
        wait_until_ready(api, API_SECONDS, "starting the API", board.tend)
        for name, worker in workers.items():
            wait_until_ready(worker, WORKER_SECONDS, f"loading {name} into the engine", board.tend)
        for name, worker in torch.items():
            wait_until_ready(worker, WORKER_SECONDS, f"loading {name} for derivatives", board.tend)
        board.begin(None)
        started.callback(show.err.print, "stopping ...")  # the first of the callbacks to run
        every = (api, *workers.values(), *torch.values())
        yield Stack(home, f"{base_url}/v1", urls, models, every, board)


def _plain(name: str, models: Mapping[str, str]) -> bool:
    """Whether the base has derivatives: its weights are not quantised."""
    return not base_model.open_base(name, models[name]).quantised


@contextmanager
def _servers(home: Path, board: Board) -> Iterator[Urls]:
    """ONWARD_DATABASE_URL, one role for all, and ONWARD_REDIS_URL where both are set; otherwise embedded servers in
    `home`, which the board tends too."""
    database, broker = (os.environ.get(name) for name in ("ONWARD_DATABASE_URL", "ONWARD_REDIS_URL"))
    if database and broker:
        yield Urls(database, broker, database, database)
        return
    embedded = Embedded(home)
    try:
        with waiting("starting PostgreSQL and Valkey"):
            urls = embedded.start()
    except AlreadyRunning as error:
        raise Failure(str(error), "stop it, or give another --home") from None
    except ServerError as error:
        raise Failure(str(error), f"the servers are kept in {embedded.home}") from None
    try:
        board.children += [
            _tended("postgres", embedded.postgres, embedded.restart_postgres),
            _tended("valkey", embedded.valkey, embedded.restart_valkey),
        ]
        if database:
            urls = Urls(database, urls.redis_url, database, database)
        yield replace(urls, redis_url=broker or urls.redis_url)
    finally:
        embedded.stop()


def _tended(name: str, server: Server, restart: Callable[[], None]) -> Supervised:
    """A server that runs, started again where it ends."""

    def process() -> Process:
        assert server.popen is not None, "it was started"
        return Process(name, server.popen, server.log)

    def begin() -> Process:
        restart()
        return process()

    return Supervised(name, begin, first=process())


def _alone(home: Path) -> None:
    """Raises Failure when another `onward up` serves this home."""
    other = beside.read(home)
    pid = other.pid if other is not None else service(home).get("pid")
    if isinstance(pid, int) and pid != os.getpid() and beside.lives(pid, other.born if other else None):
        raise Failure(f"a service already runs in {home} (process {pid})", "stop it, or give another --home")


def _free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise Failure(f"port {port} is taken", "give another with --port (0: any free one)") from None
        free: int = probe.getsockname()[1]
        return free


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            ok: bool = answer.status == 200
            return ok
    except (URLError, OSError):
        return False


def _ready(database_url: str, pid: int) -> bool:
    """Whether the worker with this pid said so; no where the database is away."""
    try:
        with sessions(database_url).begin() as session:
            found: Any = session.scalar(select(Worker.id).where(Worker.pid == pid, Worker.state == "ready"))
    except SQLAlchemyError:
        return False
    return found is not None
