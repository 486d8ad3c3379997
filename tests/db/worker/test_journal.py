"""The journal: contiguous, exact, written once by one worker, whatever is killed and when."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest
from sqlalchemy import func, select, text, update

from db import files
from db.tables import Evaluation, JournalStep, Lease
from db.tenant import adapters, curves, jobs
from db.transitions import WrongState
from db.worker import journal, leases
from db.worker.journal import Evaluated, Published, Step
from db.worker.leases import LeaseLost
from tests.db.inserted import a_claim, a_job, a_tenant, a_worker
from tests.waiting import HANG

PUBLISHED = Published(name="ft:tiny:x", step=5, sha256="a" * 64, path="/a/b", tar=b"tar" * 1000)


@pytest.fixture
def tenant(session):
    return a_tenant(session)


@pytest.fixture
def job(session, tenant):
    return a_job(session, tenant)


@pytest.fixture
def claim(session, job):
    return a_claim(session, job)


def steps(start, stop):
    return [Step(i, [float(i), i + 0.1], 10) for i in range(start, stop)]


def test_losses_come_back_bit_for_bit(session, claim):
    losses = [[0.1 + 0.2, 1e-300, 5e-324], [math.pi, -0.0, 1.7976931348623157e308], [math.nan, math.inf, -math.inf]]
    journal.flush(session, claim, [Step(i, row, 1) for i, row in enumerate(losses)])
    session.expire_all()
    found = journal.read(session, claim)
    assert [[x.hex() for x in row] for row in found] == [[x.hex() for x in row] for row in losses]
    assert journal.read(session, claim.job_id, 2) == losses[:2]
    assert journal.read(session, claim, 0) == []


def test_a_flush_moves_the_job(session, tenant, job, claim):
    finish = datetime.now(UTC) + timedelta(minutes=1)
    journal.flush(
        session, claim, steps(0, 5), [Evaluated(0, 2.0, 0.5, 8, 100), Evaluated(5, 1.5, 0.75, 8, 100)], (5, 1.5), finish
    )
    session.refresh(job)
    assert (job.step, job.scored_tokens, job.best_step, job.best_loss) == (5, 250, 5, 1.5)
    assert (job.attempts, job.estimated_finish) == (0, finish)
    told = [e for e in jobs.events(tenant, session, job.id)[0] if e.type == "metrics"]
    assert [e.data for e in reversed(told)] == [
        {"step": 0, "total_steps": 10, "valid_loss": 2.0, "valid_mean_token_accuracy": 0.5},
        {"step": 5, "total_steps": 10, "train_loss": 4.05},
        {"step": 5, "total_steps": 10, "valid_loss": 1.5, "valid_mean_token_accuracy": 0.75},
    ]
    found, _ = jobs.checkpoints(tenant, session, job.id)
    assert [(e.step, e.loss, e.token) for e in found] == [(5, 1.5, claim.token), (0, 2.0, claim.token)]


@pytest.mark.parametrize("wrong", [steps(1, 2), steps(0, 2)[::-1], steps(0, 1) * 2, [steps(0, 1)[0], steps(2, 3)[0]]])
def test_a_gap_and_a_repetition_are_refused(session, claim, wrong):
    with pytest.raises(ValueError, match="is at step 0"):
        journal.flush(session, claim, wrong)
    assert journal.read(session, claim) == []


def test_a_step_cannot_be_written_twice(session, claim, job):
    journal.flush(session, claim, steps(0, 3))
    with pytest.raises(ValueError, match="is at step 3"):
        journal.flush(session, claim, steps(0, 3))
    journal.flush(session, claim, steps(3, 4))
    assert len(journal.read(session, claim)) == 4
    assert job.scored_tokens == 40


def test_an_evaluation_ahead_of_the_journal_is_refused(session, claim):
    with pytest.raises(ValueError, match="ahead"):
        journal.flush(session, claim, steps(0, 3), [Evaluated(4, 1.0, 0.5, 8, 1)])


def test_an_evaluation_measured_again_is_counted_once(session, claim, job):
    journal.flush(session, claim, [], [Evaluated(0, 2.0, 0.5, 8, 100)])
    journal.flush(session, claim, [], [Evaluated(0, 2.5, 0.5, 8, 100)])
    assert job.scored_tokens == 100
    assert session.scalars(select(Evaluation.loss).where(Evaluation.job_id == job.id)).all() == [2.0]


def test_losses_that_are_no_numbers_can_be_reported(session, tenant, job, claim):
    journal.flush(session, claim, [Step(0, [math.nan, math.inf], 1)], [Evaluated(1, math.nan, 0.0, 8, 1)])
    held_out, train, warning = jobs.events(tenant, session, job.id)[0][:3]
    assert (held_out.data["valid_loss"], train.data["train_loss"]) == (None, None)
    assert train.message == "Step 1/10: train_loss=not finite"
    assert (warning.level, warning.message) == (
        "warn", "Losses were not finite at step 1: the adapter is left as it was",
    )  # fmt: skip


def test_finish_is_one_transaction(session, tenant, job, claim):
    with pytest.raises(ValueError, match="step 0 of 10"):
        journal.finish(session, claim, PUBLISHED)
    journal.flush(session, claim, steps(0, 10))
    journal.finish(session, claim, PUBLISHED)
    session.refresh(job)
    assert (job.state, job.finished_at is not None, job.estimated_finish) == ("succeeded", True, None)
    adapter = adapters.of_job(tenant, session, job.id)
    assert (adapter.name, adapter.step, adapter.sha256, adapter.token) == ("ft:tiny:x", 5, "a" * 64, claim.token)
    assert b"".join(files.content(tenant, session, adapter.file_id)) == PUBLISHED.tar
    assert session.get(Lease, job.id) is None
    assert jobs.events(tenant, session, job.id)[0][0].message.startswith("Job succeeded")
    for act in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(WrongState):
            act(tenant, session, job.id)


def test_the_drift_of_what_is_published_is_the_last_of_its_metrics(session, tenant, job, claim):
    journal.flush(session, claim, steps(0, 10), [Evaluated(10, 1.5, 0.75, 8, 100)])
    assert curves.drift(tenant, session, job.id) is None
    journal.finish(session, claim, replace(PUBLISHED, drift=0.01234))
    assert curves.drift(tenant, session, job.id) == 0.01234
    assert curves.drift("another", session, job.id) is None
    told = [e for e in jobs.events(tenant, session, job.id)[0] if e.type == "metrics"]
    assert (told[0].message, told[0].data) == (
        "Step 5/10: drift=0.0123", {"step": 5, "total_steps": 10, "drift": 0.01234},
    )  # fmt: skip


def test_of_a_job_whose_drift_was_not_measured_nothing_is_said(session, tenant, job, claim):
    journal.flush(session, claim, steps(0, 10))
    journal.finish(session, claim, PUBLISHED)
    assert curves.drift(tenant, session, job.id) is None
    assert not [e for e in jobs.events(tenant, session, job.id)[0] if "drift" in e.message]


def test_a_failed_job_says_why_and_keeps_its_best(session, tenant, job, claim):
    journal.flush(session, claim, steps(0, 6), [Evaluated(5, 1.5, 0.75, 8, 100)], (5, 1.5))
    journal.fail(session, claim, "non_finite_loss", "the loss of step 6 is nan", PUBLISHED)
    session.refresh(job)
    assert job.state == "failed"
    assert job.error == {"code": "non_finite_loss", "message": "the loss of step 6 is nan", "param": None}
    assert adapters.of_job(tenant, session, job.id).step == 5
    newest = jobs.events(tenant, session, job.id)[0][0]
    assert (newest.level, newest.data) == ("error", {"code": "non_finite_loss"})


def test_a_transaction_that_dies_leaves_no_trace(factory):
    with factory.begin() as session:
        job = a_job(session, a_tenant(session))
        claim = a_claim(session, job)
    session = factory()
    journal.flush(session, claim, steps(0, 4))
    backend = session.scalar(select(func.pg_backend_pid()))
    with factory.begin() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": backend})
    with pytest.raises(Exception, match=r"terminat|closed|lost|server"):
        session.commit()
    session.invalidate()
    with factory.begin() as session:
        assert journal.read(session, claim) == []
        journal.flush(session, claim, steps(0, 4))
        assert len(journal.read(session, claim)) == 4


def test_two_workers_on_one_job_write_one_gapless_journal(factory):
    """Both believe to hold it: each claims when the other's lease has run out under it, again and again."""
    with factory.begin() as session:
        job_id = a_job(session, a_tenant(session), steps=25).id
        workers = [a_worker(session) for _ in range(2)]
    refused = []

    def work(worker: str) -> None:
        mine = None
        while True:
            with factory.begin() as session:
                mine = leases.claim(session, job_id, worker, HANG, 10_000) or mine
                step = session.scalar(select(func.count()).select_from(JournalStep).where(JournalStep.job_id == job_id))
            if step >= 25:
                return
            if mine is None:
                continue
            try:
                with factory.begin() as session:
                    journal.flush(session, mine, [Step(step, [float(mine.token)], 1)])
            except (LeaseLost, ValueError) as error:
                refused.append(error)
            with factory.begin() as session:
                session.execute(
                    update(Lease).where(Lease.job_id == job_id).values(expires_at=text("clock_timestamp()"))
                )

    threads = [Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with factory.begin() as session:
        rows = session.execute(
            select(JournalStep.step, JournalStep.token, JournalStep.losses)
            .where(JournalStep.job_id == job_id)
            .order_by(JournalStep.step)
        ).all()
    assert [step for step, _, _ in rows] == list(range(25))
    assert all(losses == [float(token)] for _, token, losses in rows)
    tokens = [token for _, token, _ in rows]
    assert tokens == sorted(tokens), "an old token never wrote after a newer one"
    assert any(isinstance(error, LeaseLost) for error in refused)
