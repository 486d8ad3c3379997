"""The thread that keeps leases: what it learns of each claim, and what it makes of a database that is away."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import select, text, update

from db import workers
from db.ids import new_id
from db.tables import Job, Lease, Worker
from db.tenant import jobs
from db.worker import leases
from tests.db.inserted import a_claim, a_job, a_tenant, a_worker
from tests.waiting import HANG
from tests.worker.slices.doubles import Bowl, Unreliable
from worker.scoring.metered import MeteredScorer
from worker.settings import WorkerSettings
from worker.slices.heartbeat import Heartbeat
from worker.types import Candidate, Example, Layout, Module, Trial

LEASE = 60.0


@pytest.fixture
def model():
    """Of this test alone, so that a sweep finds its jobs only."""
    return new_id("m-")


@pytest.fixture
def settings(tmp_path, model):
    return WorkerSettings(
        model=model, home=tmp_path, lease_seconds=LEASE, wish_seconds=1, heartbeat_seconds=1, sweep_seconds=1
    )


@pytest.fixture
def rung():
    return []


@pytest.fixture
def worker(factory, model):
    with factory.begin() as session:
        return a_worker(session, model)


@pytest.fixture
def database(factory):
    return Unreliable(factory)


@pytest.fixture
def heartbeat(database, settings, worker, rung):
    return Heartbeat(database, settings, worker, rung.append)


@pytest.fixture
def claim(factory, worker):
    with factory.begin() as session:
        return a_claim(session, a_job(session, a_tenant(session)), worker, seconds=5)


def expire(factory, claim) -> None:
    with factory.begin() as session:
        ours = update(Lease).where(Lease.job_id == claim.job_id)
        session.execute(ours.values(expires_at=text("clock_timestamp()")))


def again(factory, claim):
    """The same job claimed anew by the same worker, after its lease has run out."""
    expire(factory, claim)
    with factory.begin() as session:
        return a_claim(session, session.get_one(Job, claim.job_id), claim.worker_id, seconds=5)


def left(factory, claim) -> float:
    """Seconds that the lease still lasts, by the database's clock."""
    with factory.begin() as session:
        rest = select(text("extract(epoch FROM expires_at - clock_timestamp())")).select_from(Lease)
        return float(session.scalar(rest.where(Lease.job_id == claim.job_id)))


def test_a_claim_that_is_held_is_renewed(factory, heartbeat, claim):
    heartbeat.hold(claim, time.monotonic())
    before = time.monotonic()
    heartbeat.renew()
    assert LEASE - 5 < left(factory, claim) <= LEASE
    assert before + LEASE <= heartbeat.until(claim.job_id) <= time.monotonic() + LEASE
    assert not heartbeat.lost(claim.job_id)


def test_a_lease_is_surely_ours_from_before_it_was_claimed(heartbeat, claim):
    heartbeat.hold(claim, 100.0)
    assert heartbeat.until(claim.job_id) == 100.0 + LEASE
    assert heartbeat.until("ftjob-none") == 0.0


def test_a_lease_that_ran_out_is_lost_and_not_extended(factory, heartbeat, claim):
    heartbeat.hold(claim, 100.0)
    expire(factory, claim)
    heartbeat.renew()
    assert heartbeat.lost(claim.job_id)
    assert heartbeat.until(claim.job_id) == 100.0 + LEASE
    assert left(factory, claim) < 0


def test_a_lost_lease_takes_no_other_with_it(factory, heartbeat, claim, worker):
    with factory.begin() as session:
        other = a_claim(session, a_job(session, a_tenant(session)), worker)
    heartbeat.hold(claim, 100.0)
    heartbeat.hold(other, 100.0)
    expire(factory, claim)
    heartbeat.renew()
    assert (heartbeat.lost(claim.job_id), heartbeat.lost(other.job_id)) == (True, False)


@pytest.mark.parametrize("wish", ["pause", "cancel"])
def test_a_wish_is_seen(factory, heartbeat, claim, wish):
    heartbeat.hold(claim, 100.0)
    heartbeat.look_for_wishes()
    assert heartbeat.wish(claim.job_id) is None
    with factory.begin() as session:
        getattr(jobs, wish)(claim.tenant_id, session, claim.job_id)
    heartbeat.look_for_wishes()
    assert heartbeat.wish(claim.job_id) == wish
    assert heartbeat.wish("ftjob-none") is None


@pytest.mark.parametrize("look", ["renew", "look_for_wishes"])
def test_what_is_learned_of_a_claim_dropped_meanwhile_is_nothing(factory, database, heartbeat, claim, look):
    heartbeat.hold(claim, 100.0)
    with factory.begin() as session:
        jobs.cancel(claim.tenant_id, session, claim.job_id)
    if look == "renew":
        expire(factory, claim)
    database.meanwhile = lambda: heartbeat.drop(claim.job_id)
    getattr(heartbeat, look)()
    assert not heartbeat.lost(claim.job_id)
    assert heartbeat.wish(claim.job_id) is None
    assert heartbeat.until(claim.job_id) == 0.0


def test_a_renewal_of_the_old_claim_says_nothing_of_the_new_one(factory, database, heartbeat, claim):
    """It was asked with the old token, and answered after the job had been claimed anew: the new lease is not lost."""
    heartbeat.hold(claim, 100.0)
    expire(factory, claim)
    database.meanwhile = lambda: heartbeat.hold(again(factory, claim), 200.0)
    heartbeat.renew()
    assert not heartbeat.lost(claim.job_id)
    assert heartbeat.until(claim.job_id) == 200.0 + LEASE


def test_a_wish_of_the_old_claim_is_not_the_new_ones(factory, database, heartbeat, claim):
    heartbeat.hold(claim, 100.0)
    with factory.begin() as session:
        jobs.pause(claim.tenant_id, session, claim.job_id)

    def released_and_claimed() -> None:
        with factory.begin() as session:
            leases.release(session, claim)
            job = jobs.resume(claim.tenant_id, session, claim.job_id)
            new = a_claim(session, job, claim.worker_id)
        heartbeat.hold(new, 200.0)

    database.meanwhile = released_and_claimed
    heartbeat.look_for_wishes()
    assert heartbeat.wish(claim.job_id) is None


def test_claiming_anew_forgets_what_the_old_claim_had_come_to(factory, heartbeat, claim):
    heartbeat.hold(claim, 100.0)
    expire(factory, claim)
    heartbeat.renew()
    assert heartbeat.lost(claim.job_id)
    heartbeat.hold(again(factory, claim), 200.0)
    assert not heartbeat.lost(claim.job_id)


def test_with_nothing_held_nothing_is_asked(database, heartbeat):
    heartbeat.renew()
    heartbeat.look_for_wishes()
    assert database.begun == 0


def test_a_beat_says_that_the_worker_lives_and_that_it_drains(factory, heartbeat, worker):
    def row() -> Worker:
        with factory.begin() as session:
            return session.get_one(Worker, worker)

    with factory.begin() as session:
        workers.beat(session, worker, state="ready")
    before = row().heartbeat_at
    heartbeat.beat()
    assert row().heartbeat_at > before
    assert row().state == "ready"
    heartbeat.draining.set()
    heartbeat.beat()
    assert row().state == "draining"


def test_work_that_nobody_holds_is_rung_for(factory, heartbeat, rung, model):
    with factory.begin() as session:
        job = a_job(session, a_tenant(session), model=model)
        job.rung_at = text("now() - interval '1 minute'")
    heartbeat.sweep()
    assert rung == [model]


def test_a_database_that_is_away_is_one_line_an_outage(database, heartbeat, claim, lines):
    heartbeat.hold(claim, 100.0)
    database.fates = ["away"] * 7
    for now in (1.0, 100.0):  # four acts are due each time: the eighth gets through, with both its transactions
        heartbeat.turn(now)
    assert database.begun == 9
    assert [x["event"] for x in lines] == ["database unreachable"]
    assert not heartbeat.lost(claim.job_id), "whether a lease survived is for the database to say"
    database.fates = ["away"] * 4
    heartbeat.turn(200.0)
    assert [x["event"] for x in lines] == ["database unreachable"] * 2


def test_each_act_has_its_own_rhythm(database, heartbeat, claim):
    heartbeat.hold(claim, 100.0)
    begun = []
    for now in (
        1.0,
        1.5,
        2.0,
        21.0,
    ):  # all of four, of which one takes two; none; all but renewing, every third of 60 s; all
        heartbeat.turn(now)
        begun.append(database.begun)
    assert begun == [5, 5, 9, 14]


def test_the_thread_takes_turns_until_it_is_stopped(factory, tmp_path, worker, model):
    rang = threading.Event()
    quick = WorkerSettings(model=model, home=tmp_path, wish_seconds=0.002, sweep_seconds=0.002)
    beats = Heartbeat(factory, quick, worker, lambda _: rang.set())
    with factory.begin() as session:
        job = a_job(session, a_tenant(session), model=model)
        job.rung_at = text("now() - interval '1 minute'")
    beats.start()
    assert rang.wait(HANG)
    beats.stop()
    assert not beats.is_alive()


def test_a_beat_tells_the_rate_that_the_scorer_has_measured(heartbeat, factory, worker):
    heartbeat.beat()
    with factory() as session:
        assert session.get_one(Worker, worker).rate is None
    metered, shape = MeteredScorer(Bowl(), "m"), Layout(1, 1.0, (Module("a", 1, 1),))
    text = Example((np.zeros(7, np.int32),), (Candidate(0, np.zeros(1, np.int32), np.zeros(1, np.int32)),))
    heartbeat.rate = lambda: metered.rate
    metered.score([Trial(shape, np.zeros(2, np.float32), (text,), "lm")])
    heartbeat.beat()
    with factory() as session:
        assert session.get_one(Worker, worker).rate == metered.rate > 0


def test_a_rate_does_not_count_the_time_that_scoring_stood_for_serving():
    """Nearly all of a wave's half second it stood: the rate is that of the rest."""
    bowl, shape = Bowl(), Layout(1, 1.0, (Module("a", 1, 1),))
    owner = SimpleNamespace(paused=0.0, serving_since=None)
    metered = MeteredScorer(bowl, "m", engine=SimpleNamespace(owner=owner))

    def stands(_: object) -> None:
        time.sleep(0.5)
        owner.paused += 0.499

    bowl.sees = stands
    text = Example((np.zeros(7, np.int32),), (Candidate(0, np.zeros(1, np.int32), np.zeros(1, np.int32)),))
    metered.score([trial := Trial(shape, np.zeros(2, np.float32), (text,), "lm")])
    assert metered.rate is not None
    assert metered.rate > 3 * trial.tokens, "without it two trials a second"


def test_a_home_that_cannot_be_written_is_out_of_service_from_the_start_until_it_can(
    heartbeat, settings, factory, worker
):
    (settings.home / "snapshots").write_text("in the way")
    heartbeat.look_at_disk()
    heartbeat.beat()
    assert heartbeat.out.reason == "disk"
    with factory.begin() as session:
        assert session.get_one(Worker, worker).state == "out"
    (settings.home / "snapshots").unlink()
    heartbeat.try_disk()
    assert heartbeat.out is None


def test_a_home_that_can_be_written_is_no_reason_to_leave(heartbeat, settings):
    heartbeat.look_at_disk()
    assert heartbeat.out is None
    assert list((settings.home / "adapters").iterdir()) == []
