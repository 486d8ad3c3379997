"""The life of a worker in this process and its main thread: Celery on a real broker, a scorer that computes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import signals
from celery.app import trace
from celery.exceptions import WorkerShutdown
from celery.worker import state as celery_state
from kombu import Connection
from pydantic import SecretStr
from sqlalchemy import select, text
from structlog.testing import capture_logs

from db.contract.tokens.base_model import UnknownBase
from db.ids import new_id
from db.queue import celery_app
from db.tables import Job, Worker
from tests.ports import free_port
from tests.waiting import HANG
from tests.worker.slices.doubles import STEPS, Bowl, a_choice_job, base_folder
from worker import process
from worker.settings import WorkerSettings
from worker.types import CannotCompute


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    """What a process that serves leaves changed for good, put back: handlers, receivers, Celery's flags."""
    own = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    handlers = {number: signal.getsignal(number) for number in own}
    heard = (
        signals.worker_shutting_down,
        signals.setup_logging,
        signals.worker_ready,
        signals.task_postrun,
        signals.celeryd_init,
    )
    receivers = [list(each.receivers or ()) for each in heard]
    celery_app.cache_clear()
    yield
    celery_app.cache_clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for each, before in zip(heard, receivers, strict=True):
        each.receivers = before
        each.sender_receivers_cache.clear()
    celery_state.should_stop = celery_state.should_terminate = None
    trace.reset_worker_optimizations()


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as found:
        yield found


@pytest.fixture
def settings(tmp_path, urls, redis_url) -> WorkerSettings:
    """Of a model of this test alone. Its heartbeats' rhythms are long: what happens is not theirs."""
    model = new_id("m-")
    return WorkerSettings(
        model=model, models={model: str(base_folder(tmp_path))}, database_url=urls.worker_url, redis_url=redis_url,
        home=tmp_path / "home", slice_seconds=60, lease_seconds=60, sweep_seconds=60,
    )  # fmt: skip


@pytest.fixture
def worker(factory, settings) -> Callable[[], Worker | None]:
    """The row of the worker of this test's model."""

    def read() -> Worker | None:
        with factory.begin() as session:
            return session.scalar(select(Worker).where(Worker.model == settings.model))

    return read


@pytest.fixture
def submit(factory, settings) -> Callable[[], str]:
    def create() -> str:
        with factory.begin() as session:
            return a_choice_job(session, settings.model)

    return create


def job(factory, job_id: str) -> Job:
    with factory.begin() as session:
        return session.get_one(Job, job_id)


def terminate(*_: Any, **__: Any) -> None:
    """As whoever stops a process does."""
    os.kill(os.getpid(), signal.SIGTERM)


def opened(scorer: Bowl) -> process.Opens:
    return lambda *_: (scorer, {"scorer": "bowl"})


def stopped_at(number: int) -> tuple[Bowl, list[int]]:
    """A scorer during whose call of this number the process is told to end, and the calls it has had."""
    scorer, calls = Bowl(), []

    def called(_: Any) -> None:
        calls.append(1)
        if len(calls) == number:
            terminate()

    scorer.sees = called
    return scorer, calls


def beating() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_an_idle_worker_ends_at_once_and_signs_off(settings, worker, lines, monkeypatch):
    seen, told, answered, polls = [], threading.Event(), threading.Event(), []
    poll = Connection.drain_events

    def noted(self: Connection, *args: Any, **kwargs: Any) -> Any:
        """Celery's wait for the next doorbell, and how it ended once the worker was told to end."""
        try:
            return poll(self, *args, **kwargs)
        finally:
            if told.is_set():
                polls.append(sys.exc_info()[0])

    def tell() -> None:
        assert answered.wait(HANG)  # the doorbell of its start: it waits for the next one now
        told.set()
        terminate()

    monkeypatch.setattr(Connection, "drain_events", noted)

    signals.worker_ready.connect(lambda **_: seen.append(worker().state), weak=False)
    signals.task_postrun.connect(lambda **_: answered.set(), weak=False)
    threading.Thread(target=tell, daemon=True).start()
    assert process.run(settings, opened(Bowl())) == 0
    assert polls == [WorkerShutdown], "it waited for Celery, which looks up from its broker every 2 s"
    assert seen == ["ready"]
    assert (worker().state, worker().capacity, worker().about) == ("gone", Bowl.capacity, {"scorer": "bowl"})
    assert [x["event"] for x in lines if x["event"] in ("starting", "ready", "ended")] == ["starting", "ready", "ended"]
    assert beating() == []


def test_what_waited_for_a_worker_is_rung_for_when_it_starts(factory, settings, submit):
    job_id = submit()
    scorer, _ = stopped_at(STEPS)
    assert process.run(settings, opened(scorer)) == 0
    assert job(factory, job_id).state == "succeeded"


def test_a_drain_ends_the_step_gives_the_job_back_and_signs_off(factory, settings, submit, worker):
    job_id = submit()
    scorer, calls = stopped_at(2)
    assert process.run(settings, opened(scorer)) == 0
    assert len(calls) == 2, "no step is begun after the signal"
    left = job(factory, job_id)
    assert (left.state, left.step, left.deaths) == ("queued", 2, [])
    assert worker().state == "gone"


def test_a_worker_whose_home_cannot_be_written_takes_nothing_and_says_so(factory, settings, submit, worker, lines):
    settings.home.mkdir()
    (settings.home / "snapshots").write_text("in the way")
    job_id, scorer, called = submit(), Bowl(), []
    scorer.sees = called.append
    signals.task_postrun.connect(terminate, weak=False)  # the doorbell of its start was answered
    assert process.run(settings, opened(scorer)) == 0
    assert called == []
    assert (job(factory, job_id).state, job(factory, job_id).step) == ("queued", 0)
    assert "disk" in [x["reason"] for x in lines if x["event"] == "out of service"]
    assert (worker().state, worker().reason.startswith("disk: ")) == ("gone", True)


def test_an_engine_that_cannot_be_trusted_ends_the_process(factory, settings, submit, worker, lines):
    job_id, scorer = submit(), Bowl()

    def broken(_: Any) -> None:
        raise RuntimeError("engine core died")

    scorer.sees, scorer.whole = broken, False
    assert process.run(settings, opened(scorer)) == 1
    assert "the engine cannot be trusted: this worker ends" in [x["event"] for x in lines]
    assert (job(factory, job_id).state, len(job(factory, job_id).deaths)) == ("queued", 1)
    assert (worker().state, worker().reason) == ("gone", "engine: RuntimeError: engine core died")


def test_a_worker_told_to_end_while_it_loads_signs_off(settings, worker):
    def loads(*_: Any) -> Any:
        terminate()
        raise AssertionError("the signal did not end it")

    with pytest.raises(SystemExit) as end:
        process.run(settings, loads)
    assert end.value.code == 0
    assert worker().state == "gone"


def test_a_signal_whose_exception_is_lost_while_it_loads_is_heeded_all_the_same(settings, worker):
    def loads(*_: Any) -> Any:
        with contextlib.suppress(SystemExit):  # as Python does with what a weak reference's callback raises
            terminate()
        return opened(Bowl())()

    assert process.run(settings, loads) == 0
    assert worker().state == "gone"


def test_a_worker_told_to_end_while_celery_starts_ends_in_order_and_takes_nothing(factory, settings, submit, worker):
    """Nothing is raised into the imports of its start."""
    job_id, after = submit(), []
    signals.celeryd_init.connect(terminate)
    signals.celeryd_init.connect(lambda **_: after.append(1), weak=False)
    assert process.run(settings, opened(Bowl())) == 0
    assert after == [1]
    assert job(factory, job_id).fence == 0
    assert worker().state == "gone"


def test_an_engine_that_does_not_start_is_raised_and_the_worker_signs_off(settings, worker, lines):
    seen = []

    def loads(*_: Any) -> Any:
        seen.append(worker().state)
        raise OSError("no weights")

    with pytest.raises(OSError, match="no weights"):
        process.run(settings, loads)
    assert (seen, worker().state) == (["starting"], "gone")
    assert beating() == []
    assert "ready" not in [x["event"] for x in lines]


def test_a_model_that_is_not_configured_keeps_a_worker_from_starting(settings, worker):
    other = settings.model_copy(update={"models": {}})
    with pytest.raises(UnknownBase):
        process.run(other, opened(Bowl()))
    assert worker() is None


def test_a_key_of_receipts_that_is_none_keeps_a_worker_from_starting(settings, worker):
    wrong = settings.model_copy(update={"receipt_key": SecretStr("sesame" * 10)})
    with pytest.raises(CannotCompute, match="64 hexadecimal digits") as caught:
        process.run(wrong, opened(Bowl()))
    assert "sesame" not in str(caught.value)
    assert worker() is None


def test_a_database_that_is_away_keeps_a_worker_from_starting(settings):
    away = settings.model_copy(update={"database_url": "postgresql://onward@127.0.0.1:1/onward"})
    with pytest.raises(process.NoDatabase, match="the database is away"):
        process.run(away, opened(Bowl()))
    assert beating() == []


@pytest.mark.parametrize(
    ("there", "status", "why"),
    [
        (True, 1, "the database is away, or `onward migrate` has not run: "),
        (False, 2, "has no config.json"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_one_line(tmp_path, there, status, why):
    folder = base_folder(tmp_path) if there else tmp_path
    environment = os.environ | {
        "ONWARD_DATABASE_URL": f"postgresql+psycopg://onward@127.0.0.1:{free_port()}/onward",
        "ONWARD_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "ONWARD_HOME": str(tmp_path / "home"),
        "ONWARD_MODEL": "tiny",
        "ONWARD_MODELS": json.dumps({"tiny": str(folder)}),
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker"], env=environment, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("the worker does not start: ")]
    assert why in line


def test_a_metrics_port_that_is_taken_keeps_a_worker_from_starting(settings, worker):
    with socket.create_server(("", 0)) as taken:
        port = settings.model_copy(update={"worker_metrics_port": taken.getsockname()[1]})
        with pytest.raises(OSError, match="in use"):
            process.run(port, opened(Bowl()))
    assert worker().state == "gone"


def test_a_database_lost_at_the_end_is_a_line_and_hides_no_reason(factory, settings, lines):
    def rename(old: str, new: str) -> None:
        with factory.begin() as session:
            session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    def loads(*_: Any) -> Any:
        rename("workers", "lost")
        raise OSError("no weights")

    try:
        with pytest.raises(OSError, match="no weights"):
            process.run(settings, loads)
    finally:
        rename("lost", "workers")
    assert [x["event"] for x in lines][-2:] == ["could not sign off", "ended"]


def test_what_a_killed_worker_left_is_reaped_at_the_start(settings, submit, lines):
    job_id = submit()
    half = settings.home / "adapters" / f".{job_id}.a1b2"
    strange = settings.home / "adapters" / ".ftjob-of-another-installation.a1b2"
    for folder in (half, strange):
        folder.mkdir(parents=True)
    scorer, _ = stopped_at(1)
    assert process.run(settings, opened(scorer)) == 0
    assert not half.exists()
    assert strange.exists(), "of what the database does not know, nobody knows who holds it"
    assert [x["count"] for x in lines if x["event"] == "reaped what a worker left"] == [1]
