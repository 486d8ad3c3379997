"""An API whose workers are wires of the test (wire.py): rows say where they are, as heartbeats do."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from api.settings import Settings
from db import workers
from db.ids import adapter_name
from db.tables import Adapter, File, Job, Served, Worker
from tests.api.chat.wire import SECRET, Wire, listening
from tests.api.conftest import MODEL, Client, client, serving
from tests.bases import tiny
from tests.db.inserted import a_claim, a_job
from tests.waiting import HANG

HI = [{"role": "user", "content": "yes or no?"}]
SHA = "0" * 64


@pytest.fixture(scope="module")
def chats(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Quick to notice what is wrong; "plain" has no worker, ever."""
    plain: Path = tiny("opt", tmp_path_factory.mktemp("plain"))
    quick: dict[str, Any] = {"serve_patience_seconds": 0.3, "serve_usage_seconds": 0.05, "serve_memory_seconds": HANG}
    quick |= {"serve_secret": SecretStr(SECRET), "models": settings.models | {"plain": str(plain)}}
    return settings.model_copy(update=quick)


@pytest.fixture(scope="module")
def url(chats: Settings) -> Iterator[str]:
    with serving(chats) as found:
        yield found


@dataclass
class Fleet:
    """The workers of a test: `add` gives one more, whose row says what is given."""

    factory: sessionmaker[Session]
    stack: ExitStack

    def add(self, model: str = MODEL, wire: Wire | None = None, **said: Any) -> Wire:
        made = self.stack.enter_context(listening(wire))
        made.worker = self.row(made.url, model, **said)  # type: ignore[attr-defined]
        return made

    def row(self, url: str, model: str = MODEL, **said: Any) -> str:
        about = {"url": url, "held": [], "queued_tokens": 0, "tools": False, "answer": True} | said
        with self.factory.begin() as session:
            worker = workers.register(session, model=model, host="here", pid=1)
            workers.beat(session, worker, state="ready", serving=about)
            beats_until = text(f"clock_timestamp() + interval '{HANG} seconds'")
            session.execute(update(Worker).where(Worker.id == worker).values(heartbeat_at=beats_until))
        return worker


@contextmanager
def fleet_of(factory: sessionmaker[Session]) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(factory, stack)
    with factory.begin() as session:
        session.execute(update(Worker).values(state="gone", serving=None))


@pytest.fixture
def fleet(factory: sessionmaker[Session]) -> Iterator[Fleet]:
    with fleet_of(factory) as found:
        yield found


@pytest.fixture
def worker(fleet: Fleet) -> Wire:
    return fleet.add()


@pytest.fixture
def eva(factory: sessionmaker[Session], url: str, request: pytest.FixtureRequest) -> Client:
    """A tenant that nobody else is."""
    return client(factory, url, f"eva-{request.node.name}")


def trained(factory: sessionmaker[Session], who: Client, state: str, step: int = 0, **spec: Any) -> tuple[str, str]:
    """A job of the tenant in that state, with so many steps: its id and its adapter's name."""
    with factory.begin() as session:
        job = a_job(session, who.id, **spec)
        if state in ("running", "succeeded", "failed", "cancelled"):
            a_claim(session, job)
        job.step = step
        ends = state in ("succeeded", "failed", "cancelled")
        job.state = state
        if ends:
            job.step = job.total_steps if state == "succeeded" else step
            job.finished_at = func.now()
        if state == "failed":
            job.error = {"code": "x", "message": "y", "param": None}
        session.flush()
        return job.id, adapter_name(job.model, who.id, None, job.id)


def published(factory: sessionmaker[Session], who: Client, job: str, name: str, step: int) -> None:
    with factory.begin() as session:
        file = File(
            id=f"file-{job}", tenant_id=who.id, purpose="fine-tune-results", filename="a.tar", bytes=1, sha256=SHA
        )
        session.add(file)
        session.flush()
        session.add(
            Adapter(
                id=f"adpt-{job}", tenant_id=who.id, job_id=job, name=name, step=step, sha256=SHA, path="/x",
                file_id=file.id, token=1,
            )
        )  # fmt: skip


@pytest.fixture
def train(factory: sessionmaker[Session]) -> Callable[..., tuple[str, str]]:
    return lambda who, state, step=0, **spec: trained(factory, who, state, step, **spec)


def of(factory: sessionmaker[Session], job: str) -> Job:
    with factory.begin() as session:
        return session.get_one(Job, job)


def counted(factory: sessionmaker[Session], who: Client) -> list[tuple[int, ...]]:
    """What was written of the tenant's requests: tokens of each one's prompt, the cached ones, and of its answer."""
    wanted = select(Served.prompt, Served.cached, Served.completion).where(Served.tenant_id == who.id)
    with factory.begin() as session:
        return [tuple(row) for row in session.execute(wanted)]
