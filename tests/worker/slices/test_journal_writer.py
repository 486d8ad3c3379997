"""The writer of a run's steps: what is committed is written once, what is refused is void, an outage is waited out."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from db.tables import Evaluation, Job, JournalStep, Lease
from db.worker.journal import Evaluated, Step
from db.worker.leases import LeaseLost
from tests.db.inserted import a_claim, a_job, a_tenant
from tests.worker.slices.doubles import Later, Time, Unreliable, counted
from worker import metrics
from worker.runs.replay import Point
from worker.slices.journal_writer import JournalWriter
from worker.slices.pace import Pace
from worker.slices.persist import BACK_OFF
from worker.zo.methods import mezo

FOREVER = float("inf")


@pytest.fixture
def claim(factory):
    with factory.begin() as session:
        return a_claim(session, a_job(session, a_tenant(session)))


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def writer(factory, claim, time):
    """A writer whose database goes as `writer.factory.fates` say."""
    return JournalWriter(claim, "tiny", Unreliable(factory), Pace(0), time.clock)


def add(writer: JournalWriter, *numbers: int) -> None:
    for number in numbers:
        writer.add(Step(number, [float(number), 0.5], 7), None, None, 7)


def lose_lease(factory, claim) -> None:
    with factory.begin() as session:
        ours = update(Lease).where(Lease.job_id == claim.job_id)
        session.execute(ours.values(expires_at=text("clock_timestamp()")))


@pytest.fixture
def committed(factory, claim):
    """The steps in the journal, and the tokens that the job has paid."""

    def read() -> tuple[list[int], int]:
        with factory.begin() as session:
            steps = select(JournalStep.step).where(JournalStep.job_id == claim.job_id).order_by(JournalStep.step)
            return list(session.scalars(steps)), session.get_one(Job, claim.job_id).scored_tokens

    return read


def refusals() -> float:
    return counted(metrics.fenced_writes.labels("tiny"))


def test_what_was_added_is_committed_once_it_is_flushed(writer, committed):
    add(writer, 0, 1)
    assert not writer.empty
    writer.flush(lambda: 0.0)
    assert committed() == ([0, 1], 14)
    assert writer.empty
    writer.flush(lambda: 0.0)
    assert committed() == ([0, 1], 14)
    assert writer.tokens == 14


def test_nothing_added_asks_nothing_of_the_database(writer):
    writer.flush(lambda: 0.0)
    assert writer.factory.begun == 0


def test_evaluations_and_the_best_are_written_with_the_steps(factory, writer, claim):
    writer.add(Step(0, [1.0, 2.0], 7), Evaluated(0, 1.5, 0.5, 4, 9), (0, 1.5), 16)
    writer.flush(lambda: 0.0)
    with factory.begin() as session:
        assert session.get_one(Evaluation, (claim.job_id, 0)).loss == 1.5
        job = session.get_one(Job, claim.job_id)
        assert (job.best_step, job.best_loss, job.scored_tokens) == (0, 1.5, 16)


def test_a_write_whose_answer_was_lost_is_not_written_twice(writer, committed, time):
    writer.factory.fates = ["no answer", "well"]
    add(writer, 0, 1)
    writer.flush(lambda: FOREVER)
    assert writer.factory.begun == 2
    assert committed() == ([0, 1], 14)
    add(writer, 2)
    writer.flush(lambda: FOREVER)
    assert committed() == ([0, 1, 2], 21)


def test_a_background_write_whose_answer_was_lost_is_not_written_twice(writer, committed, time):
    pool = Later()
    writer.factory.fates = ["no answer", "away", "well"]
    add(writer, 0)
    writer.flush_due(pool, 0.0)
    pool.work()
    add(writer, 1)
    writer.flush(lambda: FOREVER)  # hears of the first, is refused a connection, then writes
    assert committed() == ([0, 1], 14)


def test_a_flush_waits_longer_from_try_to_try(writer, committed, time):
    writer.factory.fates = ["away"] * 7
    add(writer, 0)
    writer.flush(lambda: FOREVER)
    assert time.slept == [*BACK_OFF, BACK_OFF[-1], BACK_OFF[-1]]
    assert list(BACK_OFF) == sorted(set(BACK_OFF))
    assert committed() == ([0], 7)


def test_a_flush_gives_up_before_its_time_is_over_and_keeps_the_steps(writer, committed, time):
    writer.factory.fates = ["away"] * 100
    add(writer, 0)
    ends = time.now + 0.4
    with pytest.raises(OperationalError):
        writer.flush(lambda: ends)
    assert time.slept == [0.05, 0.1, 0.2]
    assert not writer.empty
    assert not writer.refused
    writer.factory.fates = []
    writer.flush(lambda: 0.0)
    assert committed() == ([0], 7)


def test_a_refusal_voids_what_is_not_committed(factory, writer, claim, committed):
    add(writer, 0)
    writer.flush(lambda: 0.0)
    lose_lease(factory, claim)
    add(writer, 1)
    before = refusals()
    with pytest.raises(LeaseLost):
        writer.flush(lambda: FOREVER)
    assert writer.refused
    assert refusals() == before + 1
    begun = writer.factory.begun
    with pytest.raises(LeaseLost):
        writer.flush(lambda: FOREVER)
    assert writer.factory.begun == begun, "the database has said it once"
    assert refusals() == before + 1
    assert committed() == ([0], 7)


def test_a_refusal_in_the_background_is_noticed_at_the_next_step(factory, writer, claim, committed):
    pool = Later()
    lose_lease(factory, claim)
    add(writer, 0)
    writer.flush_due(pool, 0.0)
    pool.work()
    assert not writer.refused
    writer.flush_due(pool, 0.0)
    assert writer.refused
    assert committed() == ([], 0)


def test_a_lease_lost_while_an_answer_was_lost_is_a_refusal(factory, writer, claim, committed):
    """The first try was committed; before the second the lease runs out."""
    writer.factory.fates = ["no answer"]
    writer.factory.meanwhile = lambda: lose_lease(factory, claim)
    add(writer, 0)
    with pytest.raises(LeaseLost):
        writer.flush(lambda: FOREVER)
    assert committed() == ([0], 7)


def test_a_background_write_begins_when_the_oldest_step_is_old_enough(writer, committed, time):
    pool = Later()
    add(writer, 0)
    writer.flush(lambda: 0.0)
    add(writer, 1)
    time.now += 0.75
    add(writer, 2)
    writer.flush_due(pool, 1.0)
    assert not pool.waiting
    time.now += 0.25
    writer.flush_due(pool, 1.0)
    assert len(pool.waiting) == 1
    pool.work()
    assert committed() == ([0, 1, 2], 21)


def test_the_very_first_step_is_written_at_once(writer):
    pool = Later()
    add(writer, 0)
    writer.flush_due(pool, 1000.0)
    assert len(pool.waiting) == 1


def test_one_write_is_under_way_at_most_and_takes_only_what_was_there(writer, committed):
    pool = Later()
    add(writer, 0)
    writer.flush_due(pool, 0.0)
    add(writer, 1)
    writer.flush_due(pool, 0.0)
    assert len(pool.waiting) == 1
    pool.work()
    assert committed() == ([0], 7)
    writer.flush_due(pool, 0.0)
    assert [s.step for s in writer.steps] == [1]
    pool.work()
    assert committed() == ([0, 1], 14)


def test_who_serves_is_told_of_the_point_that_was_committed_and_of_none_that_was_not(factory, writer, claim):
    """What is added while a write is under way is ahead of it; what was refused is void."""
    pool, told, at = Later(), [], iter(range(1, 9))
    writer.now = lambda: Point(np.zeros(1, np.float32), mezo.State(next(at)))
    writer.told = lambda job, point: told.append((job, point.state.step))
    add(writer, 0)
    writer.flush_due(pool, 0.0)
    add(writer, 1)
    pool.work()
    assert told == []
    writer.flush_due(pool, 0.0)  # hears of the first, and sends the second
    assert told == [(claim.job_id, 1)]
    pool.work()
    add(writer, 2)
    writer.flush(lambda: FOREVER)
    assert told == [(claim.job_id, step) for step in (1, 2, 3)]
    lose_lease(factory, claim)
    add(writer, 3)
    with pytest.raises(LeaseLost):
        writer.flush(lambda: FOREVER)
    assert len(told) == 3


def test_a_background_write_that_fails_is_tried_again_after_a_pause(writer, committed, time, lines):
    pool = Later()
    writer.factory.fates = ["away"]
    add(writer, 0)
    writer.flush_due(pool, 0.0)
    pool.work()
    writer.flush_due(pool, 0.0)
    assert [x["event"] for x in lines] == ["steps not yet written"]
    assert not pool.waiting
    time.now += BACK_OFF[-1]
    writer.flush_due(pool, 0.0)
    pool.work()
    assert committed() == ([0], 7)


def test_a_flush_waits_for_the_write_that_is_under_way(writer, committed):
    with ThreadPoolExecutor(1) as pool:
        add(writer, 0)
        writer.flush_due(pool, 0.0)
        add(writer, 1)
        writer.flush(lambda: 0.0)
    assert committed() == ([0, 1], 14)
    assert writer.empty


def test_the_lag_is_the_age_of_the_oldest_uncommitted_step(writer, time):
    assert writer.lag() == 0.0
    add(writer, 0)
    time.now += 2.0
    add(writer, 1)
    time.now += 1.0
    assert writer.lag() == 3.0
    writer.flush(lambda: 0.0)
    time.now += 5.0
    assert writer.lag() == 0.0
