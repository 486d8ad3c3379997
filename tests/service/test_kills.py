"""A worker that dies at the worst moments: the job finishes as if nothing had happened, to the bit."""

import pytest

from tests.service.stage import MORTAL
from tests.waiting import until


@pytest.fixture(scope="module")
def undisturbed(stage, steady, client, submit) -> str:
    """The adapter's hash of the same job on a worker that lives. The oracle scores one trial at a time, so that its
    losses do not depend on company, and equal losses give equal adapters."""
    return stage.whole(client, submit(client, "steady"))


def test_sigkill_in_the_middle_of_a_run(stage, harmed, client, submit, undisturbed):
    (worker,) = harmed(**MORTAL, ONWARD_FAULT="after_score:200:stop")  # it cannot end before it is killed
    job = submit(client, "harmed")
    stage.reached(job, 20)
    worker.kill()
    left_at = stage.left(job)
    assert 20 <= left_at < 250
    (second,) = harmed()
    assert stage.whole(client, job) == undisturbed
    assert [x["step"] for x in second.lines("replayed")] == [left_at]
    assert second.metric("onward_lease_expiries_total") == 1


@pytest.mark.parametrize("fault", ["after_score:40", "before_finish"])
def test_death_between_scoring_and_journal_and_between_publishing_and_its_row(
    fault, stage, harmed, client, submit, undisturbed
):
    (worker,) = harmed(**MORTAL, ONWARD_FAULT=fault)
    job = submit(client, "harmed")
    assert worker.died() == 137
    assert stage.job(job).state == "running"
    assert (stage.home / "adapters" / job).exists() == (fault == "before_finish")
    harmed()
    assert stage.whole(client, job) == undisturbed


def test_a_job_that_kills_every_worker_ends_as_poison(stage, harmed, client, submit):
    job = submit(client, "harmed")
    (worker,) = harmed(ONWARD_FAULT="after_score", ONWARD_MAX_ATTEMPTS="1")
    assert worker.died() == 137
    stage.lapse(job)
    (second,) = harmed(ONWARD_FAULT="after_score", ONWARD_MAX_ATTEMPTS="1")
    until(lambda: stage.job(job).state == "failed", "failed")
    assert client.fine_tuning.jobs.retrieve(job).error.code == "poison"
    assert stage.job(job).step == 0
    assert second.alive  # it never took the job up
