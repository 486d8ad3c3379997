"""A worker's context on a real database, a model name of its own a test, and jobs for it."""

import threading
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from db import workers
from db.contract.tokens.base_model import open_base
from db.ids import new_id
from db.tables import Job
from tests.waiting import AGES, HANG
from tests.worker.slices.doubles import Bowl, a_choice_job, base_folder
from worker.health import Progress
from worker.settings import WorkerSettings
from worker.slices.context import Context
from worker.slices.heartbeat import Heartbeat


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return base_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def rung() -> list[str]:
    """The models that were rung for."""
    return []


@pytest.fixture
def given_up() -> threading.Event:
    return threading.Event()


@pytest.fixture
def context(factory, as_worker, urls, tmp_path, base, rung, given_up) -> Iterator[Context]:
    model = new_id("m-")
    settings = WorkerSettings(
        model=model,
        database_url=urls.worker_url,
        home=tmp_path,
        slice_seconds=AGES,
        flush_seconds=0.01,
        lease_seconds=AGES,
    )
    with factory.begin() as session:
        worker_id = workers.register(session, model=model, host="here", pid=1)
    beats = Heartbeat(as_worker, settings, worker_id, rung.append)  # not started: leases are long
    made = Context(
        settings, open_base(model, str(base)), Bowl(), as_worker, worker_id, beats, rung.append, given_up.set,
        Progress(HANG),
    )  # fmt: skip
    made.rows = factory  # the owner's sessions: for what a test sets up and looks at
    yield made
    made.pool.shutdown()


@pytest.fixture
def submit(factory, context) -> Callable[..., str]:
    """Makes a queued job of the context's model."""

    def create(rank: int = 2, **changes: object) -> str:
        with factory.begin() as session:
            return a_choice_job(session, context.model, rank, **changes)

    return create


@pytest.fixture
def row(factory) -> Callable[[str], Job]:
    """The job's row as it is committed."""

    def read(job_id: str) -> Job:
        with factory.begin() as session:
            return session.get_one(Job, job_id)

    return read


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged, line by line."""
    with capture_logs() as found:
        yield found
