"""What is held against a job whose workers fall silent: evidence, suspicion, poison; and what is not."""

from typing import Any

import pytest
from sqlalchemy import select, text, update

from db import workers
from db.contract.spec import SPEC_VERSION
from db.tables import Event, Lease, Worker
from db.tenant import jobs
from db.worker import journal, leases
from db.worker.candidates import candidates
from db.worker.journal import Step
from db.worker.leases import Claim
from tests.db.inserted import MODEL, a_claim, a_job, a_tenant, a_worker
from tests.waiting import HANG


@pytest.fixture
def tenant(session):
    return a_tenant(session)


@pytest.fixture
def job(session, tenant):
    return a_job(session, tenant)


def mortal(session) -> str:
    """A worker that has beaten for the last time."""
    return workers.register(session, model=MODEL, host="here", pid=1)


def lapse(session) -> None:
    session.execute(update(Lease).values(expires_at=text("clock_timestamp()")))


def claimed(session, job, deaths: int = 3, within: float = leases.DAY) -> Claim | None:
    return leases.claim(session, job.id, mortal(session), HANG, deaths, within)


def died(session, job, steps: int = 0, deaths: int = 3) -> Claim:
    """Claimed by a worker that commits so many steps and is never heard of again."""
    claim = claimed(session, job, deaths)
    assert claim is not None
    if steps:
        journal.flush(session, claim, [Step(claim.step + i, [0.5], 1) for i in range(steps)])
    lapse(session)
    return claim


def newest(session, job) -> Event:
    return session.scalars(select(Event).where(Event.job_id == job.id).order_by(Event.id.desc())).first()


def test_a_death_is_recorded_with_its_evidence_and_makes_a_suspect(session, job):
    first = died(session, job, steps=2)
    assert not first.alone
    (seen,) = candidates(session, MODEL)
    assert (seen.job_id, seen.suspect) == (job.id, True), "a suspect before anyone has claimed it anew"
    second = claimed(session, job)
    assert (second.alone, second.took_over, second.deaths, second.token) == (True, True, 1, 2)
    (death,) = job.deaths
    assert {k: death[k] for k in ("worker", "token", "step", "alone")} == {
        "worker": first.worker_id,
        "token": 1,
        "step": 2,
        "alone": False,
    }
    assert session.get_one(Lease, job.id).alone


def test_only_deaths_alone_make_poison_and_the_tenant_reads_the_evidence(session, job):
    with_others, *alone = [died(session, job, deaths=3) for _ in range(4)]
    assert not with_others.alone
    assert all(claim.alone for claim in alone)
    assert claimed(session, job) is None
    assert (job.state, job.error["code"]) == ("failed", "poison")
    told = newest(session, job)
    assert [death["worker"] for death in told.data["deaths"]] == [claim.worker_id for claim in alone]
    for claim in alone:
        assert claim.worker_id in job.error["message"]
    assert "step 0" in job.error["message"]
    assert candidates(session, MODEL) == []


def test_committed_steps_clear_nothing(session, job):
    for _ in range(4):
        died(session, job, steps=2, deaths=3)
    assert claimed(session, job) is None
    assert (job.error["code"], job.step) == ("poison", 8)


def test_deaths_of_another_day_are_not_held_against_it(session, job):
    for _ in range(4):
        died(session, job, deaths=4)
    leases.release(session, claimed(session, job, deaths=4))  # the fourth is recorded here
    claim = claimed(session, job, deaths=1, within=1e-6)
    assert claim is not None
    assert claim.deaths == 0
    assert len(job.deaths) == 4, "they are evidence all the same"


def test_a_suspect_that_was_given_back_in_order_is_cleared_and_its_next_death_is_in_company(session, job):
    for _ in range(5):
        died(session, job, deaths=1)
        probation = claimed(session, job, deaths=1)
        assert probation.alone
        leases.release(session, probation, suspect=False)
        assert not candidates(session, MODEL)[0].suspect
    assert job.state == "queued"


def test_a_suspect_that_was_only_given_back_stays_one(session, job):
    leases.release(session, a_claim(session, job), suspect=True)
    assert newest(session, job).level == "warn"
    leases.release(session, a_claim(session, job))
    assert candidates(session, MODEL)[0].suspect


def test_an_engine_that_broke_under_it_alone_is_a_death_and_holds_no_lease(session, job):
    claim = a_claim(session, job)
    leases.blame(session, claim)
    assert (job.state, job.suspect, job.deaths[0]["alone"]) == ("queued", True, True)
    assert session.get(Lease, job.id, populate_existing=True) is None
    assert claimed(session, job, deaths=1) is None
    assert job.error["code"] == "poison"


@pytest.mark.parametrize("how", ["beats on", "signed off", "claims again"])
def test_a_holder_that_lives_was_kept_from_the_database_and_nobody_died(session, job, how):
    holder = a_worker(session) if how == "beats on" else mortal(session)
    leases.claim(session, job.id, holder, HANG, 1)
    if how == "signed off":
        workers.leave(session, holder)
    lapse(session)
    next_one = holder if how == "claims again" else mortal(session)
    claim = leases.claim(session, job.id, next_one, HANG, 1)
    assert (claim.took_over, claim.alone, claim.deaths, job.deaths) == (True, False, 0, [])


def test_evidence_is_bounded(session, job):
    for _ in range(40):
        died(session, job, deaths=1000)
    claimed(session, job, deaths=1000)
    assert len(job.deaths) == 32
    assert job.deaths[-1]["token"] == 40


def test_a_pause_of_a_worker_that_died_is_obeyed_and_the_death_recorded(session, job, tenant):
    claimed(session, job)
    jobs.pause(tenant, session, job.id)
    lapse(session)
    assert claimed(session, job) is None
    assert (job.state, len(job.deaths), job.suspect) == ("paused", 1, True)


UNREADABLE: list[dict[str, Any]] = [
    {"adverb": "swiftly"},
    {"method": {"name": "of-tomorrow"}},
    {"method": None},
    {"objective": "joy"},
]


@pytest.mark.parametrize("change", UNREADABLE)
def test_a_spec_that_cannot_be_read_waits_for_a_newer_worker_and_is_cancelled_at_once(session, tenant, job, change):
    job.spec = {**job.spec, **change}
    session.flush()
    assert claimed(session, job) is None
    assert (job.state, job.spec_version, job.error) == ("queued", SPEC_VERSION + 1, None)
    assert session.get(Lease, job.id) is None
    assert candidates(session, MODEL) == []
    assert (newest(session, job).level, "newer worker" in newest(session, job).message) == ("warn", True)
    jobs.cancel(tenant, session, job.id)
    assert job.state == "cancelled"


def test_one_that_an_older_worker_left_behind_is_set_aside_too(session, job):
    died(session, job)
    job.spec = {**job.spec, "adverb": "swiftly"}
    session.flush()
    assert claimed(session, job) is None
    assert (job.state, job.spec_version, session.get(Lease, job.id)) == ("queued", SPEC_VERSION + 1, None)


def test_a_job_is_written_with_the_version_of_its_spec_and_later_ones_are_not_seen(session, job):
    assert job.spec_version == SPEC_VERSION
    job.spec_version = SPEC_VERSION + 1
    session.flush()
    assert candidates(session, MODEL) == []


def test_what_no_one_holds_is_told(session, tenant, job):
    held, lapsed, other = (a_job(session, tenant) for _ in range(3))
    a_claim(session, lapsed)
    lapse(session)
    a_claim(session, held)
    asked = {x.id for x in (job, held, lapsed)} | {"ftjob-nobody"}
    assert leases.unheld(session, asked) == {job.id, lapsed.id}
    assert leases.unheld(session, set()) == set()
    del other


def test_a_worker_out_of_service_says_why_and_serves_nobody_until_it_is_back(session):
    worker = a_worker(session, "alone")
    workers.beat(session, worker, state="ready")
    workers.out(session, worker, "disk: full")
    found = session.get_one(Worker, worker, populate_existing=True)
    assert (found.state, found.reason) == ("out", "disk: full")
    assert not workers.serving(session, "alone", HANG)
    workers.back(session, worker)
    session.refresh(found)
    assert (found.state, found.reason) == ("ready", None)
    assert workers.serving(session, "alone", HANG)
    workers.leave(session, worker, "engine: off")
    session.refresh(found)
    assert (found.state, found.reason) == ("gone", "engine: off")
