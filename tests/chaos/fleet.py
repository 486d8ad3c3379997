"""The processes of a storm: servers, API, workers that are replaced where they end. Knows no plan and no invariant."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine, case, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.session import make_engine
from db.tables import ENDED, Job
from tests.bases import tiny
from tests.service.processes import Process
from tests.service.stage import Stage
from tests.waiting import HANG, until

T = TypeVar("T")
LEASE = 4.0  # seconds, in a storm: what a killed worker held is claimed again soon after
SLICE = 1.0
# The storm's own kills say nothing of a job: no run of bad luck may look like a poisonous one.
STORM = {
    "ONWARD_LEASE_SECONDS": str(LEASE),
    "ONWARD_SLICE_SECONDS": str(SLICE),
    "ONWARD_MAX_ATTEMPTS": "1000",
    "ONWARD_COHORT": "4",
}
CURSED = "tests.chaos.cursed"  # a worker whose engine has a fault that one kind of run finds


@dataclass
class Post:
    """A place that a worker fills: who ends there is replaced."""

    model: str
    scorer: str = "torch"
    env: dict[str, str] = field(default_factory=dict)
    main: str = "worker"
    fork: bool = False  # also an engine's worker comes out of the fork server
    process: Process | None = None
    ended: list[tuple[int, Path]] = field(default_factory=list)  # exit status and log of those nobody killed


@dataclass
class Fleet(Stage):
    """A stage whose API and workers come back. An outage is a time in which an API or a database is away by our own
    doing: what is answered 5xx in one is no fault of the service."""

    posts: list[Post] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)  # time.monotonic()

    def start(self) -> None:
        super().start()
        self.api = self.processes[0]
        self._admin: Engine = make_engine(self.embedded.postgres.url, pool_size=1)

    def stop(self) -> None:
        super().stop()
        self._admin.dispose()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def hire(self, post: Post, **env: str) -> Process:
        """A new worker at the post; `env` is for this one alone."""
        fork = post.fork or post.scorer == "torch"
        about = STORM | post.env | env
        post.process = self.worker(post.model, scorer=post.scorer, wait=False, fork=fork, main=post.main, **about)
        return post.process

    def tend(self) -> None:
        """Whoever ended is replaced."""
        for post in self.posts:
            if post.process is not None and not post.process.alive:
                post.ended.append((post.process.died(), post.process.log))
                post.process = None
            if post.process is None:
                self.hire(post)

    def dismiss(self, post: Post) -> None:
        """Kill the worker, where there is one: nobody holds that against it."""
        if post.process is not None:
            post.process.kill()
            post.process = None

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The API or the database is away for as long as this lasts."""
        begun = time.monotonic()
        self.outages.append((begun, float("inf")))
        try:
            yield
        finally:
            self.outages[self.outages.index((begun, float("inf")))] = (begun, time.monotonic())

    def kill_api(self) -> None:
        """And start it again on the same port."""
        with self.outage():
            self.api.kill()
            self.api = self.serve(self.port)
            until(lambda: self._ready(self.api), "the API is back")

    @contextmanager
    def own_api(self, **env: str) -> Iterator[tuple[str, Process]]:
        """Another API process, for who means to abuse it."""
        from tests.ports import free_port

        port = free_port()
        api = self.process("api", {"ONWARD_HOST": "127.0.0.1", "ONWARD_PORT": str(port), **env})
        mine = self.url
        try:
            self.url = f"http://127.0.0.1:{port}"
            until(lambda: self._ready(api), "the other API is ready")
            url, self.url = self.url, mine
            yield url, api
        finally:
            self.url = mine
            api.kill()

    def answered(self, query: Callable[[Session], T]) -> T | None:
        """What the database answers; None where it is away or cuts the connection."""
        try:
            with self.factory.begin() as session:
                return query(session)
        except SQLAlchemyError:
            return None

    def admin(self, query: Callable[[Session], T]) -> T:
        """As the server's owner, who may see every session and end it."""
        with Session(self._admin) as session, session.begin():
            return query(session)

    def alone(self, statement: str) -> None:
        """As the server's owner, in no transaction."""
        with self._admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))

    def done(self, jobs: Sequence[str]) -> int | None:
        """Steps of these jobs that need not be waited for any more: all of one that has ended."""
        counted = func.sum(case((Job.state.in_(ENDED), Job.total_steps), else_=Job.step))
        return self.answered(lambda session: int(session.scalar(select(counted).where(Job.id.in_(jobs))) or 0))

    def restless(self, jobs: Sequence[str]) -> bool:
        """Whether any of these jobs can still go on by itself; true where the database does not say."""
        moving = select(func.count()).where(Job.id.in_(jobs), Job.state.in_(("queued", "running")))
        return self.answered(lambda session: session.scalar(moving)) != 0

    def all_ready(self) -> None:
        """Wait until every post has a worker that serves."""

        def ready(post: Post) -> bool:
            self.tend()
            return post.process is not None and bool(post.process.lines("ready"))

        for post in self.posts:
            until(lambda post=post: ready(post), f"a worker of {post.model} is ready")


@contextmanager
def fleet(models: Sequence[str], keep: Path | None = None) -> Iterator[Fleet]:
    """A fleet in a folder of its own, which goes with it; the logs are copied to `keep` where that is given."""
    home = Path(tempfile.mkdtemp(prefix="onward-chaos-"))
    home.chmod(0o711)  # the database's own user must get through
    made = Fleet(home, tiny("llama", home), tuple(models))
    try:
        made.start()
        yield made
    finally:
        made.stop()
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for log in home.glob("*.log"):
                shutil.copy(log, keep / log.name)
        shutil.rmtree(home, ignore_errors=True)


def models_of(stage: Stage) -> str:
    """ONWARD_MODELS of the stage, for what runs in this process."""
    return json.dumps({name: str(stage.base) for name in stage.models})


__all__ = ("CURSED", "HANG", "LEASE", "SLICE", "STORM", "Fleet", "Post", "fleet", "models_of")
