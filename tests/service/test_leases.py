"""Two workers and one job: one lease at a time, and who has lost it cannot write."""

import signal

from sqlalchemy import func, select

from db.tables import JournalStep, Lease, Worker
from tests.service.stage import until


def test_a_holder_that_sleeps_through_its_lease_is_refused(stage, steady, harmed, client, submit):
    expected = stage.whole(client, submit(client, "steady", steps=400))
    workers = harmed(2, ONWARD_SLICE_SECONDS="60")
    job = submit(client, "harmed", steps=400)
    stage.reached(job, 10)
    holder, other = sorted(workers, key=lambda w: w.pid != _holder(stage, job))
    holder.send(signal.SIGSTOP)
    stopped_at = stage.job(job).step
    assert stopped_at < 400
    until(lambda: stage.job(job).step > stopped_at, 30, "the other took over")
    holder.send(signal.SIGCONT)
    until(lambda: holder.metric("onward_fenced_writes_total") > 0, 30, "the holder's writes were refused")
    assert stage.whole(client, job) == expected
    assert holder.alive
    assert other.metric("onward_lease_expiries_total") == 1
    with stage.factory.begin() as session:
        tokens = select(JournalStep.token, func.min(JournalStep.step), func.max(JournalStep.step))
        written = session.execute(tokens.where(JournalStep.job_id == job).group_by(JournalStep.token)).all()
    (first, low, high), (second, then, last) = sorted(written)
    assert (first, second) == (1, 2)
    assert (low, then, last) == (0, high + 1, 399)


def test_two_workers_share_the_jobs_and_each_step_is_taken_once(stage, steady, harmed, client, submit):
    expected = [stage.whole(client, submit(client, "steady", seed=seed)) for seed in (1, 2)]
    workers = harmed(2, ONWARD_COHORT="1")
    jobs = [submit(client, "harmed", seed=seed) for seed in (1, 2)]
    assert [stage.whole(client, job) for job in jobs] == expected
    taken = [w.metric("onward_steps_total") for w in workers]
    assert sum(taken) == 500
    assert min(taken) > 0


def _holder(stage, job):
    """The process that holds the job's lease."""
    with stage.factory.begin() as session:
        return session.get_one(Worker, session.get_one(Lease, job).worker_id).pid
