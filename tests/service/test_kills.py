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
    """Its first worker might have died of something else: the second has it alone, the third leaves it."""
    job = submit(client, "harmed")
    for _ in range(2):
        (worker,) = harmed(ONWARD_FAULT="after_score", ONWARD_MAX_ATTEMPTS="1")
        assert worker.died() == 137
        stage.lapse(job)
    (third,) = harmed(ONWARD_FAULT="after_score", ONWARD_MAX_ATTEMPTS="1")
    until(lambda: stage.job(job).state == "failed", "failed")
    assert client.fine_tuning.jobs.retrieve(job).error.code == "poison"
    (last,) = [e for e in client.fine_tuning.jobs.list_events(job).data if e.level == "error"]
    assert [(death["step"], death["alone"]) for death in last.data["deaths"]] == [(0, True)]
    assert stage.job(job).step == 0
    assert third.alive


def test_neighbours_of_a_job_that_kills_its_workers_finish_and_it_alone_ends_as_poison(stage, harmed, client, submit):
    """The killer is told by its rows: whoever scores them dies. The others lose company for a while, and no step."""
    killer = submit(client, "harmed", steps=1_000)
    good = [submit(client, "harmed", seed=seed) for seed in (1, 2)]
    fault = {"ONWARD_FAULT": f"after_score:1:kill:{killer}", "ONWARD_MAX_ATTEMPTS": "2"}
    for life in range(12):
        (worker,) = harmed(**fault)
        until(lambda worker=worker: not worker.alive or stage.job(killer).state == "failed", f"life {life} is over")
        if worker.alive:
            break
        for job in (killer, *good):
            stage.lapse(job)
    assert client.fine_tuning.jobs.retrieve(killer).error.code == "poison"
    for job in good:
        stage.whole(client, job)
        assert not any(death["alone"] for death in stage.job(job).deaths)
