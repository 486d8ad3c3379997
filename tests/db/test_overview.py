"""The gauges' numbers against rows made for them."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

from db.overview import jain, overview
from db.tables import Job, Worker
from db.tenant import keys
from db.worker import journal, leases
from db.worker.journal import Step
from migrations.run import current, head
from tests.db.inserted import MODEL, a_claim, a_job, a_tenant, a_worker
from tests.waiting import HANG


def test_an_idle_service_shows_zeros_for_its_models(session):
    began = time.monotonic()
    now = overview(session, [MODEL])
    took = time.monotonic() - began
    assert now.jobs == {(MODEL, state): 0 for state in ("validating_files", "queued", "running", "paused")}
    assert (now.backlog_tokens, now.stale_workers, now.fairness) == ({MODEL: 0}, {MODEL: 0}, {MODEL: 1.0})
    assert now.database_bytes > 1_000_000
    assert abs(now.clock_skew) <= took  # one clock, read twice while it was asked


def test_jobs_backlog_and_workers(session):
    one, two = a_tenant(session), a_tenant(session)
    first = a_job(session, one, price=100)
    a_job(session, two, price=50)
    claim = a_claim(session, first)
    journal.flush(session, claim, [Step(0, [1.0, 2.0], 30)])
    silent, gone = a_worker(session), a_worker(session, "other")
    session.execute(update(Worker).where(Worker.id == silent).values(heartbeat_at=text("now() - interval '1 minute'")))
    session.execute(update(Worker).where(Worker.id == gone).values(state="gone"))
    now = overview(session, [MODEL])
    assert (now.jobs[MODEL, "queued"], now.jobs[MODEL, "running"]) == (1, 1)
    assert now.backlog_tokens == {MODEL: 120}
    assert now.workers[MODEL, "starting"] == 1
    assert now.stale_workers == {MODEL: 1}
    assert now.active_tenants == {MODEL: 2}
    assert now.fairness == {MODEL: 0.5}  # one of two has had everything


def test_a_job_between_two_slices_does_not_wait_to_begin(session):
    began, never = a_job(session, a_tenant(session)), a_job(session, a_tenant(session), model="other")
    leases.release(session, a_claim(session, began))
    for job in (began, never):
        session.execute(update(Job).where(Job.id == job.id).values(created_at=text("now() - interval '1 hour'")))
    now = overview(session, [MODEL, "other"])
    assert now.jobs[MODEL, "queued"] == now.jobs["other", "queued"] == 1
    assert now.oldest_queued[MODEL] == 0
    assert now.oldest_queued["other"] == pytest.approx(3600, abs=HANG)


def test_weights_make_unequal_shares_fair(session):
    heavy, light = (keys.create(session, name, weight=weight).id for name, weight in (("h", 3.0), ("l", 1.0)))
    for tenant, tokens in ((heavy, 300), (light, 100)):
        claim = a_claim(session, a_job(session, tenant, price=1000))
        journal.flush(session, claim, [Step(0, [1.0], tokens)])
    assert overview(session, [MODEL]).fairness[MODEL] == pytest.approx(1.0)


def test_tenants_near_their_quota(session):
    for taken in (89, 90, 100):
        a_job(session, a_tenant(session, token_quota=100), price=taken)
    a_job(session, a_tenant(session), price=10**9)
    assert overview(session, []).near_quota == 2


@given(st.lists(st.floats(0, 1e9), max_size=20))
def test_jain_is_its_formula(shares):
    x = np.array(shares, np.float64)
    want = 1.0 if len(x) < 2 or not (x * x).sum() else x.sum() ** 2 / (len(x) * (x * x).sum())
    assert jain(shares) == pytest.approx(want)
    assert 0 <= jain(shares) <= 1 + 1e-9


def test_the_schema_is_at_the_codes_head(session, empty_database_url):
    assert current(session.connection()) == head() == "0015"
