"""Cancel, pause, resume and SIGTERM while a slice is under way: obeyed at the next step, nothing lost."""

import signal
import time

import openai
import pytest

from tests.service.stage import until

LONG = 100_000
SOON = 2.0  # seconds: a look for wishes and a step take a fraction of it


def state(client, job):
    return client.fine_tuning.jobs.retrieve(job).status


def test_cancel_during_a_slice(stage, steady, client, submit):
    job = submit(client, "steady", steps=LONG)
    stage.reached(job, 5)
    started = time.monotonic()
    client.fine_tuning.jobs.cancel(job)
    until(lambda: state(client, job) == "cancelled", SOON, "cancelled")
    assert time.monotonic() - started < SOON
    row = stage.job(job)
    assert 5 <= row.step < LONG
    assert row.scored_tokens > 0
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.cancel(job)
    time.sleep(1.0)
    assert stage.job(job).step == row.step


def test_pause_resume_and_the_same_adapter_as_without(stage, steady, client, submit):
    straight = submit(client, "steady", seed=11)
    paused = submit(client, "steady", seed=11)
    stage.reached(paused, 30)
    client.fine_tuning.jobs.pause(paused)
    until(lambda: state(client, paused) == "paused", SOON, "paused")
    at = stage.job(paused).step
    time.sleep(1.5)  # a slice and more
    assert stage.job(paused).step == at < 250
    client.fine_tuning.jobs.resume(paused)
    assert stage.whole(client, paused) == stage.whole(client, straight)


def test_sigterm_finishes_the_step_and_gives_everything_back(stage, harmed, client, submit):
    (worker,) = harmed(ONWARD_SLICE_SECONDS="60")
    job = submit(client, "harmed", steps=LONG)
    stage.reached(job, 5)
    worker.send(signal.SIGTERM)
    started = time.monotonic()
    assert worker.died() == 0
    assert time.monotonic() - started < SOON  # of a slice of 60
    left = stage.job(job)
    assert left.state == "queued"
    assert left.attempts == 0
    assert worker.lines("ended")
    (other,) = harmed()
    stage.reached(job, left.step + 5)
    assert [x["step"] for x in other.lines("replayed")] == [left.step]  # nothing scored was lost
    assert other.metric("onward_lease_expiries_total") == 0  # the lease was given back, not waited for
    client.fine_tuning.jobs.cancel(job)
    until(lambda: state(client, job) == "cancelled", SOON, "cancelled")


def test_sigterm_ends_an_idle_worker_at_once(harmed):
    (worker,) = harmed()
    worker.send(signal.SIGTERM)
    started = time.monotonic()
    assert worker.died() == 0
    assert time.monotonic() - started < SOON
    assert worker.lines("ended")


def test_losses_that_are_not_finite_end_the_job_and_keep_its_best(stage, steady, client, submit):
    job = submit(client, "steady", eps=1.0, alpha=6e38)  # beyond float32 with any B but 0
    until(lambda: state(client, job) == "failed", 60, "failed")
    found = client.fine_tuning.jobs.retrieve(job)
    assert found.error is not None
    assert found.error.code == "nonfinite_loss"
    assert "step" in found.error.message
    assert found.fine_tuned_model is None
    assert found.result_files
    assert steady.metric("onward_nonfinite_losses_total") > 0
