"""Two workers and one job: one lease at a time, and who has lost it cannot write."""

import signal

from sqlalchemy import func, select

from db.tables import JournalStep
from tests.service.stage import MORTAL, UNBROKEN
from tests.waiting import AGES, until


def test_a_holder_that_sleeps_through_its_lease_is_refused(stage, steady, harmed, client, submit):
    expected = stage.whole(client, submit(client, "steady", steps=400))
    # It writes its first step at once and no other: what it has scored when it wakes is for the database to refuse.
    (holder,) = harmed(**MORTAL, ONWARD_FLUSH_SECONDS=str(AGES), ONWARD_FAULT="after_score:100:stop")
    job = submit(client, "harmed", steps=400)
    stage.reached(job, 1)
    holder.stopped()
    stage.freeze(holder, job)
    stopped_at = stage.job(job).step
    assert 1 <= stopped_at < 400
    (other,) = harmed(**UNBROKEN)
    until(lambda: stage.job(job).step > stopped_at, "the other took over")
    holder.send(signal.SIGCONT)
    until(lambda: holder.metric("onward_fenced_writes_total") > 0, "the holder's writes were refused")
    assert stage.whole(client, job) == expected
    assert holder.alive
    assert other.metric("onward_lease_expiries_total") == 1
    with stage.factory.begin() as session:
        tokens = select(JournalStep.token, func.min(JournalStep.step), func.max(JournalStep.step))
        written = session.execute(tokens.where(JournalStep.job_id == job).group_by(JournalStep.token)).all()
    firsts, lasts = [low for _, low, _ in sorted(written)], [high for _, _, high in sorted(written)]
    assert firsts == [0, *(high + 1 for high in lasts[:-1])]  # no claim wrote among another's steps
    assert (firsts[-1], lasts[-1]) == (stopped_at, 399)


def test_two_workers_share_the_jobs_and_each_step_is_taken_once(stage, steady, harmed, client, submit):
    expected = [stage.whole(client, submit(client, "steady", seed=seed)) for seed in (1, 2)]
    workers = harmed(2, **UNBROKEN, ONWARD_COHORT="1", ONWARD_FAULT="after_score:50:stop")
    jobs = [submit(client, "harmed", seed=seed) for seed in (1, 2)]
    for worker in workers:
        worker.stopped()  # in the middle of its job: neither has ended one before the other had begun
    for worker in workers:
        worker.send(signal.SIGCONT)
    assert [stage.whole(client, job) for job in jobs] == expected
    taken = [w.metric("onward_steps_total") for w in workers]
    assert sum(taken) == 500
    assert min(taken) > 0
