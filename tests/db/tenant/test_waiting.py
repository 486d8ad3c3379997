"""Why a job waits, and when it may begin: the first reason that holds, and arithmetic on what sweeps note."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

from db import outlook, usage, workers
from db.ids import new_id
from db.outlook import Outlook
from db.tables import Clock, Tenant, Usage
from db.tenant import jobs
from db.tenant.waiting import Ahead, Estimate, Queue, begins, estimated, waiting, why
from db.workers import Rates
from tests.db.inserted import a_claim, a_job, a_tenant, a_worker
from tests.waiting import HANG

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
BUSY = Outlook(rate=1000.0, weights=4.0, places=8, slice_seconds=3.0, noted_at=NOON)


def queue(now=BUSY, served=True, running=0, today=0, counted=True, rates=None, **tenant):
    return Queue(now, served, Tenant(**({"weight": 1.0} | tenant)), running, today, NOON, counted, rates)


def seconds(*args, **kwargs):
    begin = begins(*args, **kwargs)
    return None if begin is None else (begin - NOON).total_seconds()


def test_the_first_of_a_queue_begins_with_the_next_slice():
    assert seconds(queue(), Ahead()) == 1.5
    assert seconds(queue(), Ahead(1, 10**6)) == 1.5  # a quarter of eight places is two
    idle = Outlook(places=8, slice_seconds=3.0, noted_at=NOON)
    assert seconds(queue(idle, counted=False), Ahead()) == 0.0


def test_where_tenants_are_more_than_places_a_turn_takes_slices():
    crowd = Outlook(1000.0, 40.0, 8, 3.0, NOON)
    assert seconds(queue(crowd), Ahead()) == 15.0
    assert seconds(queue(crowd, weight=5.0), Ahead()) == 3.0


def test_behind_its_own_jobs_it_begins_when_enough_have_ended():
    # Two places of eight, 250 of 1,000 tokens a second: of four jobs of 500 tokens three must end.
    assert seconds(queue(), Ahead(4, 2000)) == 1.5 + 3 * 500 / 250
    assert seconds(queue(max_running=1), Ahead(4, 2000)) == 1.5 + 4 * 500 / 250
    assert seconds(queue(counted=False, weight=4.0), Ahead(4, 2000)) == 1.5 + 1 * 500 / 500


def test_an_estimate_is_no_faster_than_a_worker_and_than_the_tenants_part_of_all():
    idle = Outlook(places=8, slice_seconds=3.0, noted_at=NOON)
    two = Rates(each=100.0, whole=200.0, measured=True)
    assert estimated(queue(idle, counted=False, rates=two), Ahead(), 1000) == Estimate(10.0, True)
    # A quarter of 200 a second is 50: begun after 1.5 s, or behind 4,000 tokens of its own.
    assert estimated(queue(rates=two), Ahead(), 1000) == Estimate(21.5, True)
    assert estimated(queue(rates=two), Ahead(1, 4000), 1000) == Estimate(100.0, True)
    guess = Rates(100.0, 100.0, False)
    assert estimated(queue(idle, served=False, counted=False, rates=guess), Ahead(), 1000) == Estimate(10.0, False)
    assert estimated(queue(rates=two, daily_tokens=1, today=1), Ahead(), 1000).seconds == 12 * 3600 + 21.5
    assert estimated(queue(), Ahead(), 1000) is None
    assert estimated(queue(rates=Rates(0.0, 0.0, True)), Ahead(), 1000) is None


def test_what_is_not_known_is_not_foretold():
    assert seconds(queue(served=False), Ahead()) is None
    assert seconds(queue(Outlook()), Ahead()) is None
    slow = Outlook(0.0, 1.0, 1, 3.0, NOON)
    assert seconds(queue(slow), Ahead()) == 3.0
    assert seconds(queue(slow), Ahead(1, 10)) is None


def test_reasons_in_the_order_in_which_they_hold():
    spent = {"daily_tokens": 10, "today": 10}
    assert why("paused", queue(served=False, **spent), Ahead()).reason == "paused"
    assert why("queued", queue(served=False, **spent), Ahead()).reason == "no_worker"
    waits = why("queued", queue(max_running=1, running=1, **spent), Ahead())
    assert (waits.reason, waits.estimated_start) == ("daily_tokens", NOON + timedelta(hours=12, seconds=1.5))
    assert why("queued", queue(max_running=1, running=1, daily_tokens=10, today=9), Ahead()).reason == "max_running"
    assert why("queued", queue(served=False), Ahead(newer=True)).reason == "no_worker"
    newer = why("queued", queue(**spent), Ahead(newer=True))
    assert (newer.reason, newer.estimated_start) == ("newer_worker", None)
    assert why("queued", queue(max_running=1, running=1), Ahead(suspect=True)).reason == "max_running"
    assert why("queued", queue(), Ahead(3, 30, suspect=True)).reason == "suspect"
    turn = why("queued", queue(max_running=2, running=1), Ahead(3, 30))
    assert (turn.reason, turn.message) == ("turn", "The job waits for its turn: 3 of your jobs go before it.")


@given(
    st.builds(
        Outlook, *(st.floats(0, 1e9),) * 2, st.integers(0, 1000), st.floats(0.001, 1e3), st.none() | st.just(NOON)
    ),
    st.builds(Ahead, st.integers(0, 10**6), st.integers(0, 2**62)),
    st.floats(1e-6, 1e6),
    st.booleans(),
)
def test_no_estimate_fails_or_lies_in_the_past(now, ahead, weight, counted):
    begin = begins(queue(now, weight=weight, counted=counted), ahead)
    assert begin is None or begin >= NOON


@pytest.fixture
def model():
    return new_id("m-")


def one(tenant, session, job):
    return waiting(tenant, session, [job]).get(job.id)


def test_a_job_says_why_it_waits_until_it_runs(session, model):
    tenant = a_tenant(session, max_running=1, daily_tokens=100)
    first, second = a_job(session, tenant, model=model), a_job(session, tenant, model=model)
    second.priority = -1
    session.flush()
    assert one(tenant, session, first).reason == "no_worker"
    worker = a_worker(session, model)
    assert one(tenant, session, first).reason == "turn"
    claim = a_claim(session, first, worker)
    assert waiting(tenant, session, [first, second]).keys() == {second.id}
    assert one(tenant, session, second).reason == "max_running"
    usage.charge(session, model, tenant, 100)
    assert one(tenant, session, second).reason == "daily_tokens"
    second.spec_version += 1
    assert one(tenant, session, second).reason == "newer_worker"
    jobs.pause(tenant, session, second.id)
    assert one(tenant, session, second).reason == "paused"
    jobs.cancel(tenant, session, second.id)
    assert one(tenant, session, second) is None
    assert claim.expected_start is None


def test_an_estimate_is_of_what_live_workers_measured_or_a_guess(session, model):
    tenant = a_tenant(session)
    job = a_job(session, tenant, price=6000, model=model)
    assert one(tenant, session, job).estimate is None
    first, second, third = (a_worker(session, model) for _ in range(3))
    assert one(tenant, session, job).estimate is None
    workers.beat(session, first, state="ready", rate=100.0)
    workers.beat(session, second, rate=300.0)
    assert workers.rates(session, model) == Rates(200.0, 600.0, True)
    workers.beat(session, third, state="draining")
    assert one(tenant, session, job).estimate == Estimate(30.0, True)
    job.scored_tokens = 5000
    assert one(tenant, session, job).estimate == Estimate(5.0, True)
    for worker in (first, second):
        workers.leave(session, worker)
    found = one(tenant, session, job).estimate
    assert (found.measured, found.seconds) == (False, pytest.approx(1000 / 300))


def test_only_the_tenants_own_jobs_that_go_first_are_counted(session, model):
    tenant, other = a_tenant(session), a_tenant(session)
    a_worker(session, model)
    high, low, mine = (a_job(session, tenant, price=70, model=model) for _ in range(3))
    a_job(session, other, model=model)
    high.priority, low.priority = 5, -5
    session.flush()
    assert one(tenant, session, mine).message.endswith(": 1 of your jobs go before it.")
    assert waiting(other, session, [mine])[mine.id].message.endswith(": 0 of your jobs go before it.")


def test_a_sweep_notes_what_the_minutes_of_work_show(session, model):
    tenant, other = a_tenant(session, weight=3.0), a_tenant(session, weight=5.0)
    a_job(session, tenant, model=model)
    jobs.cancel(other, session, a_job(session, other, model=model).id)
    for _ in range(2):
        a_worker(session, model)
    for minutes, tokens in ((9, 600), (3, 1200)):
        usage.charge(session, model, tenant, tokens)
        early = update(Usage).where(Usage.model == model, Usage.tokens == tokens)
        session.execute(early.values(minute=text(f"date_trunc('minute', now()) - interval '{minutes} min'")))
    usage.charge(session, model, tenant, 10**6)  # of a minute that is not over
    outlook.note(session, model, 8, 3.0)
    found = outlook.read(session, model)
    assert (found.rate, found.weights, found.places, found.slice_seconds) == (1800 / 120, 3.0, 16, 3.0)
    later = a_job(session, tenant, price=90, model=model)
    told = waiting(tenant, session, [later])[later.id].estimated_start
    assert abs(later.expected_start - told) < timedelta(seconds=HANG)
    session.execute(update(Clock).where(Clock.model == model).values(virtual=7.0))
    outlook.note(session, model, 1, 3.0)
    assert session.get_one(Clock, model, populate_existing=True).virtual == 7.0
