"""Leases: one holder at a time, time-limited, growing tokens, fair candidates, poison."""

from dataclasses import replace
from threading import Barrier, Thread

import pytest
from sqlalchemy import select, text, update

from db.tables import Job, Lease
from db.tenant import jobs
from db.worker import claimable, leases
from db.worker.candidates import candidates
from db.worker.leases import Claim, LeaseLost
from tests.db.inserted import MODEL, a_claim, a_job, a_tenant, a_worker
from tests.waiting import HANG, until


@pytest.fixture
def tenant(session):
    return a_tenant(session, weight=2.0, tenant_class="gold")


@pytest.fixture
def job(session, tenant):
    return a_job(session, tenant)


def expire(session) -> None:
    session.execute(update(Lease).values(expires_at=text("clock_timestamp()")))


def test_a_claim_carries_what_a_run_needs(session, tenant, job):
    worker = a_worker(session)
    claim = a_claim(session, job, worker)
    assert (claim.job_id, claim.tenant_id, claim.worker_id, claim.token) == (job.id, tenant, worker, 1)
    assert claim.spec.model_dump(mode="json") == job.spec
    assert (claim.step, claim.scored_tokens, claim.price_tokens, claim.best_step) == (0, 0, 100, None)
    assert not claim.took_over
    assert (job.state, claim.alone, claim.deaths) == ("running", False, 0)
    assert claim.started_at is not None
    messages = [e.message for e in jobs.events(tenant, session, job.id)[0]]
    assert messages[0] == "Job started"


def test_a_held_job_is_nobody_elses(session, job):
    a_claim(session, job)
    assert leases.claim(session, job.id, a_worker(session), HANG, 5) is None
    assert candidates(session, MODEL) == []


def test_an_expired_lease_is_taken_over_with_a_higher_token(session, tenant, job):
    first = a_claim(session, job)
    expire(session)
    assert [w.job_id for w in candidates(session, MODEL)] == [job.id]
    second = a_claim(session, job)
    assert (second.token, second.took_over) == (first.token + 1, True)
    assert second.started_at == first.started_at
    newest = jobs.events(tenant, session, job.id)[0][0]
    assert newest.level == "warn"
    assert first.worker_id in newest.message


def test_renewing_extends_only_what_is_held(session, tenant):
    kept, lost, gone = (a_claim(session, a_job(session, tenant)) for _ in range(3))
    session.execute(update(Lease).where(Lease.job_id == lost.job_id).values(expires_at=text("clock_timestamp()")))
    leases.release(session, gone)
    forged = replace(kept, token=kept.token + 1)
    assert leases.renew(session, [kept, lost, gone, forged], 1_000_000) == {kept.job_id}
    assert leases.renew(session, [], 1000) == set()
    assert leases.wishes(session, []) == {}
    left = session.scalar(
        select(text("extract(epoch FROM expires_at - clock_timestamp())"))
        .select_from(Lease)
        .where(Lease.job_id == kept.job_id)
    )
    assert HANG < left <= 1_000_000


def test_release_gives_it_back_without_blame(session, job):
    for token in range(1, 8):  # more often than max_attempts
        claim = a_claim(session, job)
        assert (claim.token, claim.took_over) == (token, False)
        leases.release(session, claim)
        assert (job.state, job.deaths, job.suspect) == ("queued", [], False)
        with pytest.raises(LeaseLost):
            leases.release(session, claim)


def test_many_workers_at_once_one_claim(factory):
    with factory.begin() as session:
        job = a_job(session, a_tenant(session))
        workers = [a_worker(session) for _ in range(8)]
    for round_ in range(1, 6):
        barrier, claims = Barrier(len(workers)), []

        def race(worker: str, barrier=barrier, claims=claims) -> None:
            barrier.wait()
            with factory.begin() as session:
                claims.append(leases.claim(session, job.id, worker, HANG, 100))

        threads = [Thread(target=race, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        won = [claim for claim in claims if claim is not None]
        assert len(claims) == len(workers)
        assert [claim.token for claim in won] == [round_]
        with factory.begin() as session:
            expire(session)


def test_a_row_that_is_locked_for_a_moment_is_waited_for(factory, monkeypatch):
    """A sweep writes when it rang: who claims meanwhile must not pass the job by, and part it from its cohort."""
    monkeypatch.setattr(claimable, "PATIENCE", f"{HANG}s")
    with factory.begin() as session:
        job, worker = a_job(session, a_tenant(session)), a_worker(session)
    claims: list[Claim | None] = []

    def claim() -> None:
        with factory.begin() as session:
            claims.append(leases.claim(session, job.id, worker, HANG, 5))

    with factory.begin() as session:
        session.execute(update(Job).where(Job.id == job.id).values(rung_at=text("clock_timestamp()")))
        claimer = Thread(target=claim)
        claimer.start()
        until(lambda: waits_for_a_lock(factory), "the claim waits")
    claimer.join()
    assert claims[0] is not None


def test_a_row_that_stays_locked_is_passed_by(factory):
    with factory.begin() as session:
        job, worker = a_job(session, a_tenant(session)), a_worker(session)
    with factory.begin() as session:
        session.execute(update(Job).where(Job.id == job.id).values(rung_at=text("clock_timestamp()")))
        with factory.begin() as other:
            assert leases.claim(other, job.id, worker, HANG, 5) is None
            assert other.scalar(select(Job.state).where(Job.id == job.id)) == "queued", "and its transaction goes on"


def waits_for_a_lock(factory) -> bool:
    found = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with factory.begin() as session:
        return session.scalar(found) > 0
