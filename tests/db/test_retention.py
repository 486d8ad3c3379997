"""What is over goes in time, in small batches, and only that."""

from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select, text, update

from db import retention, usage
from db.contract.spec import ParentSpec
from db.retention import Keep, prune
from db.tables import (
    Adapter,
    Daily,
    Evaluation,
    Event,
    Job,
    JournalStep,
    Pruned,
    Restoration,
    RestoredChunk,
    Served,
    ServedDay,
    Share,
    Tenant,
    Usage,
    Worker,
)  # fmt: skip
from db.tenant import jobs, restorations, served
from db.tenant.served import Answered
from db.worker import journal, leases, shares
from db.worker.journal import Evaluated, Published, Step
from tests.db.inserted import MODEL, a_claim, a_job, a_tenant, a_worker

DAY = Keep(events=1, journal=1, usage=1, workers=1)
FOREVER = Keep(events=0, journal=0, usage=0, workers=0)
LONG_AGO = timedelta(days=2)
STEPS = [Step(n, [1.0], 5) for n in range(10)]


def left(session, job):
    """Rows of events, journal and evaluations that the job has."""
    return tuple(
        session.scalar(select(func.count()).select_from(table).where(table.job_id == job.id))
        for table in (Event, JournalStep, Evaluation)
    )


def long_ago(session, *ended):
    for job in ended:
        job.finished_at = func.now() - LONG_AGO
    session.flush()


def stepped(session, tenant):
    job = a_job(session, tenant)
    claim = a_claim(session, job)
    journal.flush(session, claim, STEPS, [Evaluated(10, 1.0, 0.5, 4, 3)])
    return job, claim


@pytest.fixture
def tenant(session):
    return a_tenant(session)


@pytest.fixture
def failed(session, tenant):
    job, claim = stepped(session, tenant)
    journal.fail(session, claim, "nonfinite_loss", "why")
    return job


@pytest.fixture
def published(session, tenant):
    job, claim = stepped(session, tenant)
    journal.finish(session, claim, Published(f"ft:{job.id}", 10, "0" * 64, "/a", b"tar"))
    return job


def test_a_published_adapters_journal_stays_and_its_events_go(session, failed, published):
    long_ago(session, failed, published)
    prune(session, DAY)
    assert left(session, failed) == (0, 0, 0)
    assert left(session, published) == (0, 10, 1)
    assert session.scalar(select(func.count()).select_from(Adapter)) == 1


def test_the_journal_of_a_job_that_another_goes_on_from_stays(session, tenant, failed):
    orphan, claim = stepped(session, tenant)
    journal.fail(session, claim, "nonfinite_loss", "why")
    child = a_job(session, tenant, parent=ParentSpec(job=failed.id, step=3, sha256="0" * 64))
    session.refresh(child)
    assert child.parent_id == failed.id
    long_ago(session, failed, orphan)
    prune(session, DAY)
    assert left(session, failed) == (0, 10, 1)
    assert left(session, orphan) == (0, 0, 0)


def test_a_restored_step_goes_at_its_end(session, tenant, failed):
    for step in (2, 3):
        restorations.ask(tenant, session, restorations.find(tenant, session, failed.id, step))
    gone = update(Restoration).where(Restoration.step == 2)
    session.execute(gone.values(state="ready", sha256="0" * 64, expires_at=func.now() - timedelta(seconds=1)))
    session.execute(insert(RestoredChunk).values(tenant_id=tenant, job_id=failed.id, step=2, number=0, data=b"x"))
    prune(session, FOREVER)
    assert [*session.scalars(select(Restoration.step))] == [3]
    assert session.scalar(select(func.count()).select_from(RestoredChunk)) == 0


def test_nothing_of_a_job_that_has_not_ended_goes(session, tenant):
    running, _ = stepped(session, tenant)
    queued, claim = stepped(session, tenant)
    leases.release(session, claim)
    paused, claim = stepped(session, tenant)
    leases.release(session, claim)
    jobs.pause(tenant, session, paused.id)
    kept = [running, queued, paused]
    for job in kept:
        job.created_at = job.started_at = func.now() - LONG_AGO
    session.flush()
    before = [left(session, job) for job in kept]
    prune(session, DAY)
    assert [left(session, job) for job in kept] == before
    assert all(row[1:] == (10, 1) for row in before)


def test_what_is_kept_for_ever_is_kept(session, failed):
    long_ago(session, failed)
    before = left(session, failed)
    prune(session, FOREVER)
    assert left(session, failed) == before
    assert min(before) > 0


def test_what_ended_of_late_is_kept_until_its_time(session, failed):
    before = left(session, failed)
    prune(session, DAY)
    assert left(session, failed) == before
    long_ago(session, failed)
    prune(session, DAY)
    assert left(session, failed) == (0, 0, 0)


def test_small_batches_come_to_an_end(session, tenant, monkeypatch):
    monkeypatch.setattr(retention, "ROWS", 4)
    monkeypatch.setattr(retention, "JOBS", 2)
    ended = []
    for _ in range(5):
        job, claim = stepped(session, tenant)
        journal.fail(session, claim, "x", "y")
        ended.append(job)
    long_ago(session, *ended)
    session.execute(update(Job).values(finished_at=Job.finished_at + text("(random() * interval '1 s')")))
    calls = 0
    while any(sum(left(session, job)) for job in ended):
        before = sum(sum(left(session, job)) for job in ended)
        prune(session, DAY)
        assert before - sum(sum(left(session, job)) for job in ended) <= 3 * 4
        calls += 1
        assert calls < 100
    assert calls > 5
    for _ in range(3):
        prune(session, DAY)
    last = max(session.scalars(select(Job.finished_at).where(Job.id.in_([job.id for job in ended]))))
    assert {row.finished_at for row in session.scalars(select(Pruned))} == {last}


def test_one_process_at_a_time(factory):
    with factory() as one, factory() as other:
        one.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": retention.ADVISORY_LOCK})
        a_worker(other)
        other.execute(update(Worker).values(heartbeat_at=func.now() - LONG_AGO))
        assert prune(other, DAY) == 0
        one.rollback()
        assert prune(other, DAY) == 1


def test_workers_that_are_gone_and_old_usage_go(session, tenant):
    silent, holder, lives = a_worker(session), a_worker(session), a_worker(session)
    a_claim(session, a_job(session, tenant), holder)
    old = update(Worker).where(Worker.id.in_([silent, holder])).values(heartbeat_at=func.now() - LONG_AGO)
    session.execute(old)
    usage.charge(session, MODEL, tenant, 7)
    session.execute(update(Usage).values(minute=Usage.minute - LONG_AGO))
    session.execute(update(Daily).values(day=Daily.day - 2))
    usage.charge(session, MODEL, tenant, 5)
    prune(session, DAY)
    assert {*session.scalars(select(Worker.id))} == {holder, lives}  # whose lease may still be taken over
    assert [*session.scalars(select(Usage.tokens))] == [*session.scalars(select(Daily.tokens))] == [5]


def test_served_requests_go_after_a_day_and_their_days_as_long_as_usage_is_kept(session, tenant):
    served.commit(tenant, session, [Answered("old", MODEL, 3, 0, 4)])
    session.execute(update(Served).values(at=Served.at - LONG_AGO))
    session.execute(update(ServedDay).values(day=ServedDay.day - 2))
    served.commit(tenant, session, [Answered("new", MODEL, 1, 0, 1)])
    prune(session, FOREVER)
    assert [*session.scalars(select(Served.request))] == ["new"]
    assert session.scalar(select(func.count()).select_from(ServedDay)) == 2
    prune(session, DAY)
    assert [*session.scalars(select(ServedDay.completion))] == [1]
    assert session.scalar(select(Tenant.served_tokens).where(Tenant.id == tenant)) == 9


def shared(session):
    return {*session.scalars(select(Share.tenant_id))}


def test_an_idle_share_goes_once_the_clock_has_passed_it(session, tenant):
    job, other = a_job(session, tenant), a_tenant(session)
    a_job(session, other)
    usage.charge(session, MODEL, tenant, 100)
    jobs.cancel(tenant, session, job.id)
    shares.serve(session, MODEL, [other], 10)
    prune(session, FOREVER)
    assert shared(session) == {tenant, other}, "it has had more than the others, and would begin anew"
    usage.charge(session, MODEL, other, 101)
    shares.serve(session, MODEL, [other], 10)
    prune(session, FOREVER)
    assert shared(session) == {other}


def test_a_job_that_comes_while_its_tenants_share_goes_has_one(factory):
    """Both orders: the pruner does not wait for who comes, and who comes waits for the pruner."""
    with factory.begin() as session:
        tenant = a_tenant(session)
        jobs.cancel(tenant, session, a_job(session, tenant).id)
        shares.serve(session, MODEL, [tenant], 10)
    with factory.begin() as coming:
        a_job(coming, tenant)
        with factory.begin() as pruner:
            prune(pruner, FOREVER)
    with factory.begin() as session:
        assert tenant in shared(session)
        for job in jobs.page(tenant, session)[0]:
            if job.state == "queued":
                jobs.cancel(tenant, session, job.id)
    with factory.begin() as pruner:
        prune(pruner, FOREVER)
    with factory.begin() as session:
        assert tenant not in shared(session)
        paused = a_job(session, tenant)
        jobs.pause(tenant, session, paused.id)
    with factory.begin() as pruner:
        prune(pruner, FOREVER)
        assert tenant not in shared(pruner)
    with factory.begin() as session:
        jobs.resume(tenant, session, paused.id)
        assert tenant in shared(session)
