"""Two workers and one job: one lease at a time, and who has lost it cannot write."""

import itertools
import signal

from sqlalchemy import func, select

from db.models import JournalStep
from tests.service.stage import until


def test_a_holder_that_sleeps_through_its_lease_is_refused(stage, steady, harmed, client, submit):
    expected = stage.whole(client, submit(client, "steady", steps=400))
    first = harmed(ONWARD_SLICE_SECONDS="60", ONWARD_FLUSH_SECONDS="0.05")
    job = submit(client, "harmed", steps=400)
    stage.reached(job, 10)
    second = stage.worker("harmed", wait=False)  # starts while the first works
    try:
        stage.ready(second)
        if stage.job(job).step >= 400:
            raise AssertionError("too fast to be disturbed: give it more steps")
        first.send(signal.SIGSTOP)
        stopped_at = stage.job(job).step
        until(lambda: stage.job(job).fence >= 2 and stage.job(job).step > stopped_at, 30, "the second took over")
        first.send(signal.SIGCONT)
        until(lambda: first.metric("onward_fenced_writes_total") > 0, 30, "the first was refused")
        assert stage.whole(client, job) == expected
        assert first.popen.poll() is None
        assert second.metric("onward_lease_expiries_total") == 1
        with stage.factory.begin() as session:
            tokens = select(JournalStep.token, func.min(JournalStep.step), func.max(JournalStep.step))
            written = session.execute(tokens.where(JournalStep.job_id == job).group_by(JournalStep.token)).all()
        spans = sorted((low, high, token) for token, low, high in written)
        assert [token for _, _, token in spans] == sorted(token for _, _, token in spans)  # later steps, later tokens
        assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(spans))
    finally:
        second.end()


def test_two_workers_share_the_jobs_and_each_step_is_taken_once(stage, steady, harmed, client, submit):
    expected = [stage.whole(client, submit(client, "steady", seed=seed)) for seed in (1, 2)]
    workers = [harmed(ONWARD_COHORT="1"), harmed(ONWARD_COHORT="1")]
    jobs = [submit(client, "harmed", seed=seed) for seed in (1, 2)]
    assert [stage.whole(client, job) for job in jobs] == expected
    taken = [w.metric("onward_steps_total") for w in workers]
    assert sum(taken) == 500
    assert min(taken) > 0
