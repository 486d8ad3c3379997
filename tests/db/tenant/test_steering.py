"""Cancel, pause and resume in every state, with and without a worker, alive or dead."""

import pytest
from sqlalchemy import func, select, text, update

from db.tables import Lease
from db.tenant import jobs
from db.transitions import WrongState
from db.worker import journal, leases
from db.worker.leases import LeaseLost
from tests.db.inserted import a_claim, a_job, a_tenant, a_worker

STEER = {"cancel": jobs.cancel, "pause": jobs.pause, "resume": jobs.resume}


@pytest.fixture
def tenant(session):
    return a_tenant(session)


@pytest.fixture
def job(session, tenant):
    return a_job(session, tenant)


def expire(session) -> None:
    session.execute(update(Lease).values(expires_at=text("clock_timestamp()")))


def last_event(session, tenant, job) -> str:
    return jobs.events(tenant, session, job.id)[0][0].message


@pytest.mark.parametrize(
    "before, act, after",
    [
        ([], "cancel", "cancelled"),
        ([], "pause", "paused"),
        (["pause"], "resume", "queued"),
        (["pause"], "cancel", "cancelled"),
    ],
)
def test_without_a_worker_it_happens_at_once(session, tenant, job, before, act, after):
    for earlier in before:
        STEER[earlier](tenant, session, job.id)
    assert STEER[act](tenant, session, job.id).state == after
    said = {"cancel": "cancelled", "pause": "paused", "resume": "resumed"}[act]
    assert last_event(session, tenant, job) == f"Job {said} at step 0"
    assert (job.finished_at is not None) == (after == "cancelled")


@pytest.mark.parametrize(
    "before, act, state",
    [
        ([], "resume", "queued"),
        (["pause"], "pause", "paused"),
        (["cancel"], "cancel", "cancelled"),
        (["cancel"], "pause", "cancelled"),
        (["cancel"], "resume", "cancelled"),
    ],
)
def test_what_cannot_be_is_refused(session, tenant, job, before, act, state):
    for earlier in before:
        STEER[earlier](tenant, session, job.id)
    with pytest.raises(WrongState) as refused:
        STEER[act](tenant, session, job.id)
    assert refused.value.state == state


@pytest.mark.parametrize("wish, state", [("pause", "paused"), ("cancel", "cancelled")])
def test_a_held_job_is_wished_upon_and_its_worker_obeys(session, tenant, job, wish, state):
    claim = a_claim(session, job)
    held = STEER[wish](tenant, session, job.id)
    assert (held.state, held.wish) == ("running", wish)
    with pytest.raises(WrongState):
        STEER[wish](tenant, session, job.id)
    assert leases.wishes(session, [claim]) == {job.id: wish}
    leases.release(session, claim)
    assert (job.state, job.wish) == (state, None)
    assert leases.wishes(session, [claim]) == {}
    with pytest.raises(LeaseLost):
        leases.release(session, claim)


def test_cancel_overrules_pause_and_not_the_other_way(session, tenant, job):
    a_claim(session, job)
    jobs.pause(tenant, session, job.id)
    assert jobs.cancel(tenant, session, job.id).wish == "cancel"
    for act in (jobs.pause, jobs.resume):
        with pytest.raises(WrongState):
            act(tenant, session, job.id)


def test_a_pause_nobody_saw_yet_can_be_taken_back(session, tenant, job):
    claim = a_claim(session, job)
    jobs.pause(tenant, session, job.id)
    assert jobs.resume(tenant, session, job.id).wish is None
    assert leases.wishes(session, [claim]) == {job.id: None}


@pytest.mark.parametrize("wish, state", [("pause", "paused"), ("cancel", "cancelled")])
def test_a_dead_workers_job_is_steered_at_once(session, tenant, job, wish, state):
    claim = a_claim(session, job)
    expire(session)
    assert STEER[wish](tenant, session, job.id).state == state
    assert session.scalar(select(func.count()).select_from(Lease)) == 0
    with pytest.raises(LeaseLost):
        journal.flush(session, claim, [journal.Step(0, [1.0], 1)])


@pytest.mark.parametrize("wish, state", [("pause", "paused"), ("cancel", "cancelled")])
def test_a_wish_outlives_the_worker_it_was_meant_for(session, tenant, job, wish, state):
    a_claim(session, job)
    STEER[wish](tenant, session, job.id)
    expire(session)
    assert leases.claim(session, job.id, a_worker(session), 60, 5) is None
    assert job.state == state


@pytest.mark.parametrize("wish, state", [("pause", "paused"), ("cancel", "cancelled")])
def test_release_obeys_a_wish_that_came_last(session, tenant, job, wish, state):
    claim = a_claim(session, job)
    STEER[wish](tenant, session, job.id)
    leases.release(session, claim)
    assert job.state == state
