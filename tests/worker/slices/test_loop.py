"""Slices on a real database with a scorer that computes its losses: what an engine's failure does, and to whom."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from db import files, workers
from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.base_model import open_base
from db.tables import Job, JournalStep
from db.tenant import jobs, keys
from db.worker import leases
from db.worker.journal import Step
from tests.bases import tiny
from tests.service.conftest import rows
from worker.health import Progress
from worker.settings import WorkerSettings
from worker.slices.context import Context
from worker.slices.heartbeat import Heartbeat
from worker.slices.journal_writer import JournalWriter, Pace
from worker.slices.loop import run_slice
from worker.slices.persist import persist
from worker.types import Loss, Trial

STEPS = 6


class Bowl:
    """A Scorer whose loss is the squared length of the adapter; `fails` may raise for the trials of a batch."""

    capacity = 16

    def __init__(self) -> None:
        self.fails: Callable[[Sequence[Trial]], None] = lambda _: None

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        self.fails(trials)
        return [Loss(float(np.square(t.params).sum()) * len(t.examples), len(t.examples), 0, t.tokens) for t in trials]

    def close(self) -> None:
        pass


@pytest.fixture
def context(factory, database_url, tmp_path):
    base = open_base("tiny", str(tiny("llama", tmp_path)))
    settings = WorkerSettings(
        model="tiny", database_url=database_url, home=tmp_path, slice_seconds=60, flush_seconds=0.01, lease_seconds=30
    )
    with factory.begin() as session:
        worker_id = workers.register(session, model="tiny", host="here", pid=1)
    beats = Heartbeat(factory, settings, worker_id, ring=lambda _: None)  # not started: leases are long
    given_up = threading.Event()
    made = Context(settings, base, Bowl(), factory, worker_id, beats, lambda _: None, given_up.set, Progress(60.0))
    made.given_up = given_up
    yield made
    made.pool.shutdown()
    with factory.begin() as session:  # the next test has an empty queue
        session.execute(update(Job).where(Job.state == "running").values(state="queued"))
        for job in session.scalars(select(Job).where(Job.state == "queued")):
            session.execute(update(Job).where(Job.id == job.id).values(model="elsewhere"))


@pytest.fixture
def submit(factory):
    def create(rank: int, batch_size: int = 2) -> str:
        with factory.begin() as session:
            tenant = keys.create(session, f"tenant of {rank} {np.random.default_rng().integers(2**62)}")
            about = {"filename": "a.jsonl", "purpose": "fine-tune", "format": "choice", "rows": 8}
            file = files.create(tenant.id, session, **about, chunks=[rows(8)])
            spec = JobSpec(
                model="tiny",
                objective="choice",
                adapter=AdapterSpec(rank=rank, alpha=rank, targets=("q_proj",)),
                method=methods.settings(name="mezo", eps=1e-2, learning_rate=1e-3),
                training_file=file.id,
                steps=STEPS,
                batch_size=batch_size,
                eval_every=100,
                seed=rank,
            )
            job, _ = jobs.create(
                tenant.id, session, spec=spec, request={}, request_hash="", price_tokens=0, idempotency_key=None
            )
            return job.id

    return create


def state(factory, job_id: str) -> tuple[str, int]:
    with factory.begin() as session:
        job = session.get_one(Job, job_id)
        return job.state, job.step


def hits_rank(rank: int, error: Exception) -> Callable[[Sequence[Trial]], None]:
    def fails(trials: Sequence[Trial]) -> None:
        if any(t.layout is not None and t.layout.rank == rank for t in trials):
            raise error

    return fails


def test_a_cohort_runs_to_its_end_in_one_slice(context, factory, submit):
    made = [submit(2), submit(3)]
    assert run_slice(context) is False
    assert [state(factory, job) for job in made] == [("succeeded", STEPS)] * 2


def test_a_job_of_cheap_steps_is_not_held_back_by_one_of_dear_steps(context, factory, submit):
    """Steps of 2 rows beside steps of 64: the cheap job ends long before the other's sixth step, in the same slice."""
    dear, cheap = submit(2, batch_size=64), submit(3)
    batches: list[set[int]] = []
    context.scorer.fails = lambda trials: batches.append({t.layout.rank for t in trials})
    assert run_slice(context) is False
    assert [state(factory, job) for job in (dear, cheap)] == [("succeeded", STEPS)] * 2
    assert batches[:2] == [{2, 3}] * 2  # what a step costs is known after the first
    assert batches[2:] == [{3}] * (STEPS - 2) + [{2}] * (STEPS - 2)


def test_a_run_the_engine_refuses_fails_alone_and_the_others_finish(context, factory, submit):
    good, bad, fine = submit(2), submit(3), submit(4)
    context.scorer.fails = hits_rank(3, ValueError("token out of range"))
    while run_slice(context):
        pass
    assert state(factory, good) == state(factory, fine) == ("succeeded", STEPS)
    assert state(factory, bad) == ("failed", 0)
    with factory.begin() as session:
        assert session.get_one(Job, bad).error["code"] == "engine_refused"
        assert "token out of range" in session.get_one(Job, bad).error["message"]
    assert not context.given_up.is_set()
    assert not context.suspects - {bad}


def test_an_engine_that_breaks_on_one_job_alone_ends_the_process_and_the_attempt_counts(context, factory, submit):
    job = submit(3)
    context.scorer.fails = hits_rank(3, RuntimeError("engine core died"))
    run_slice(context)
    assert context.given_up.is_set()
    assert state(factory, job) == ("running", 0)  # its lease is left to run out
    with factory.begin() as session:
        assert session.get_one(Job, job).attempts == 1


def test_what_was_scored_before_the_engine_broke_is_committed(context, factory, submit):
    made = [submit(2), submit(3)]
    calls = iter(range(100))

    def fails(trials: Sequence[Trial]) -> None:
        if next(calls) == 3:
            raise RuntimeError("out of memory")

    context.scorer.fails = fails
    assert run_slice(context) is True
    assert [state(factory, job) for job in made] == [("queued", 3)] * 2
    while run_slice(context):
        pass
    assert [state(factory, job) for job in made] == [("succeeded", STEPS)] * 2


def test_draining_leaves_work_to_others(context, factory, submit):
    job = submit(2)
    context.heartbeat.draining.set()
    assert run_slice(context) is False
    assert state(factory, job) == ("queued", 0)


def test_a_write_whose_answer_was_lost_is_not_written_twice(context, factory, submit):
    job_id = submit(2)
    with factory.begin() as session:
        claim = leases.claim(session, job_id, context.worker_id, 30, 5)
    writer = JournalWriter(claim, "tiny", factory, Pace(0))
    for step in range(2):
        writer.add(Step(step, [1.0, 2.0], 7), None, None, 7)
    writer.flush(lambda: 0.0)
    writer.add(Step(2, [1.0, 2.0], 7), None, None, 7)
    again = [Step(1, [1.0, 2.0], 7), *writer.steps]  # as if the answer to the first write had not come
    writer.steps, writer._unsure = again, True
    writer.flush(lambda: 0.0)
    with factory.begin() as session:
        written = select(JournalStep.step).where(JournalStep.job_id == job_id).order_by(JournalStep.step)
        assert list(session.scalars(written)) == [0, 1, 2]
        assert session.get_one(Job, job_id).scored_tokens == 21


def test_persisting_tries_while_the_lease_lasts_and_no_longer():
    tries = []

    def away() -> None:
        tries.append(1)
        raise OperationalError("", {}, Exception("connection refused"))

    with pytest.raises(OperationalError):
        persist(away, lambda: 0.0)
    assert len(tries) == 1
    assert persist(lambda: "written", lambda: 0.0) == "written"


def test_settings_name_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("ONWARD_MODEL", raising=False)
    with pytest.raises(ValueError, match="model"):
        WorkerSettings(home=tmp_path)
