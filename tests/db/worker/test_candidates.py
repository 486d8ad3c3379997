"""Who may be claimed: in the order of turns, within limits, the head of each queue."""

import pytest
from sqlalchemy import select, text, update

from db.ids import new_id
from db.tables import Daily, Lease, Share
from db.worker import journal, leases, shares
from db.worker.candidates import candidates
from db.worker.journal import Step
from tests.db.inserted import a_claim, a_file, a_job, a_tenant, a_worker
from tests.waiting import HANG


@pytest.fixture
def model():
    return new_id("m-")


def in_order(session, tenant, model, count):
    """So many jobs of the tenant, the oldest first."""
    file = a_file(session, tenant)
    made = [a_job(session, tenant, file, model=model) for _ in range(count)]
    for age, job in enumerate(reversed(made)):
        job.created_at = text(f"now() - interval '{age} s'")
    session.flush()
    return made


def scored(session, job, tokens):
    """The job, one step of so many tokens further and back in the queue."""
    claim = a_claim(session, job)
    journal.flush(session, claim, [Step(job.step, [1.0], tokens)])
    leases.release(session, claim)


def turns(session, model, limit=64):
    return [w.tenant_id for w in candidates(session, model, limit)]


def test_the_tenant_that_has_had_least_over_its_weight_goes_first(session, model):
    light, heavy = a_tenant(session), a_tenant(session, weight=4.0, tenant_class="gold")
    jobs = {t: a_job(session, t, model=model) for t in (heavy, light)}
    scored(session, jobs[light], 100)
    scored(session, jobs[heavy], 300)
    first, second = candidates(session, model)
    assert (first.job_id, first.tenant_class, first.weight, first.virtual) == (jobs[heavy].id, "gold", 4.0, 75.0)
    assert (second.job_id, second.virtual) == (jobs[light].id, 100.0)


def test_so_many_tenants_and_so_many_jobs_of_each(session, model):
    many, other = a_tenant(session), a_tenant(session)
    own = [job.id for job in in_order(session, many, model, 5)]
    one = a_job(session, other, model=model).id
    a_job(session, many, model=new_id("m-"))
    assert [w.job_id for w in candidates(session, model, 3)] == [*own[:3], one]
    assert [w.job_id for w in candidates(session, model, 1)] == own[:1]
    assert len(candidates(session, model)) == 6


def test_within_a_tenant_priority_goes_before_age(session, model):
    jobs = in_order(session, a_tenant(session), model, 3)
    jobs[2].priority, jobs[0].priority = 7, -7
    session.flush()
    assert [w.job_id for w in candidates(session, model)] == [jobs[i].id for i in (2, 1, 0)]
    assert [w.priority for w in candidates(session, model)] == [7, 0, -7]


def test_a_tenant_runs_no_more_jobs_than_it_may(session, model):
    jobs = in_order(session, a_tenant(session, max_running=2), model, 4)
    held = [a_claim(session, job) for job in jobs[:1]]
    assert [w.job_id for w in candidates(session, model)] == [jobs[1].id]
    held.append(a_claim(session, jobs[1]))
    assert candidates(session, model) == []
    assert leases.claim(session, jobs[2].id, a_worker(session), HANG, 5) is None  # a worker that read them before
    assert jobs[2].state == "queued"
    leases.release(session, held[0])
    assert [w.job_id for w in candidates(session, model)] == [jobs[0].id]
    session.execute(update(Lease).where(Lease.job_id == jobs[1].id).values(expires_at=text("clock_timestamp()")))
    assert len(candidates(session, model)) == 2


def test_a_tenant_has_no_more_than_its_tokens_of_the_day(session, model):
    tenant = a_tenant(session, daily_tokens=100)
    job = a_job(session, tenant, model=model)
    scored(session, job, 99)
    assert turns(session, model) == [tenant]
    scored(session, job, 1)
    assert turns(session, model) == []
    session.execute(update(Daily).where(Daily.tenant_id == tenant).values(day=text("day - 1")))
    assert turns(session, model) == [tenant]


def share(session, tenant, model):
    return session.scalar(select(Share.finish).where(Share.tenant_id == tenant, Share.model == model))


def test_one_that_comes_begins_where_the_last_served_began(session, model):
    first = a_tenant(session)
    job = a_job(session, first, model=model)
    for _ in range(3):
        shares.serve(session, model, [first], 1000)
        scored(session, job, 500)
    late = a_tenant(session)
    a_job(session, late, model=model)
    assert (share(session, late, model), share(session, first, model)) == (1000, 1500)
    assert turns(session, model) == [late, first]


def test_what_a_tenant_did_not_use_is_not_paid_later(session, model):
    busy, idle = a_tenant(session), a_tenant(session, weight=2.0)
    job, _ = a_job(session, busy, model=model), a_job(session, idle, model=model)
    scored(session, job, 10_000)
    shares.serve(session, model, [busy], 300)
    shares.serve(session, model, [idle], 300)
    assert share(session, idle, model) == 10_000 - 300 / 2
    assert [w.virtual for w in candidates(session, model)] == [-150, 0]
    shares.serve(session, model, [idle], 300)
    assert [w.virtual for w in candidates(session, model)] == [-150, 0]  # the clock goes forward only
    shares.serve(session, model, [], 300)
