"""Cancel, pause, resume and SIGTERM while a slice is under way: obeyed at the next step, nothing lost."""

import signal

import openai
import pytest

from db.contract.spec import stored
from db.tenant import jobs
from tests.service.stage import UNBROKEN
from tests.waiting import until

LONG = 1_000_000


def state(client, job):
    return client.fine_tuning.jobs.retrieve(job).status


def test_cancel_during_a_slice(stage, harmed, client, submit):
    harmed(**UNBROKEN)  # the slice would not end for it
    job = submit(client, "harmed", steps=LONG)
    stage.reached(job, 5)
    client.fine_tuning.jobs.cancel(job)
    until(lambda: state(client, job) == "cancelled", "cancelled")
    row = stage.job(job)
    assert 5 <= row.step < LONG
    assert row.scored_tokens > 0
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.cancel(job)
    stage.whole(client, submit(client, "harmed", steps=5))  # the worker goes on, and not with this one
    assert stage.job(job).step == row.step


def test_pause_resume_and_the_same_adapter_as_without(stage, steady, harmed, client, submit):
    straight = submit(client, "steady", seed=11)
    (worker,) = harmed(**UNBROKEN, ONWARD_FAULT="after_score:30:stop")
    paused = submit(client, "harmed", seed=11)
    worker.stopped()
    stage.freeze(worker, paused)
    client.fine_tuning.jobs.pause(paused)
    assert state(client, paused) == "running"
    worker.send(signal.SIGCONT)
    until(lambda: state(client, paused) == "paused", "paused")
    at = stage.job(paused).step
    stage.whole(client, submit(client, "harmed", steps=5))  # the worker goes on, and not with this one
    assert stage.job(paused).step == at < 250
    client.fine_tuning.jobs.resume(paused)
    assert stage.whole(client, paused) == stage.whole(client, straight)


def test_sigterm_finishes_the_step_and_gives_everything_back(stage, harmed, client, submit):
    (worker,) = harmed(**UNBROKEN, ONWARD_FAULT="after_score:30:stop")
    job = submit(client, "harmed", steps=LONG, eval_every=LONG)
    worker.stopped()  # in the middle of its thirtieth step
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGCONT)
    assert worker.died() == 0
    left = stage.job(job)
    assert left.step == 30  # that one is finished, and no other was begun
    assert left.state == "queued"
    assert left.deaths == []
    assert worker.lines("ended")
    (other,) = harmed()
    stage.reached(job, left.step + 5)
    assert [x["step"] for x in other.lines("replayed")] == [left.step]  # nothing scored was lost
    assert other.metric("onward_lease_expiries_total") == 0  # the lease was given back, not waited for
    client.fine_tuning.jobs.cancel(job)
    until(lambda: state(client, job) == "cancelled", "cancelled")


def test_sigterm_ends_an_idle_worker(harmed):
    (worker,) = harmed()
    worker.send(signal.SIGTERM)
    assert worker.died() == 0
    assert worker.lines("ended")


def test_losses_that_are_not_finite_end_the_job_and_keep_its_best(stage, steady, client, submit):
    """Admission refuses numbers that lead there, so the row is one that an earlier release has accepted."""
    plain = stage.ended(submit(client, "steady", steps=1), "succeeded")
    kept = stored(plain.spec | {"steps": 250})
    adapter = kept.adapter.model_copy(update={"alpha": 6e38})  # beyond float32 with any B but 0
    wild = kept.model_copy(update={"adapter": adapter, "method": kept.method.model_copy(update={"eps": 1.0})})
    with stage.factory.begin() as session:
        row, _ = jobs.create(
            plain.tenant_id, session, spec=wild, request=plain.request, request_hash=plain.request_hash,
            price_tokens=plain.price_tokens * 250, idempotency_key=None,
        )  # fmt: skip
        job = row.id
    until(lambda: state(client, job) == "failed", "failed")
    found = client.fine_tuning.jobs.retrieve(job)
    assert found.error is not None
    assert found.error.code == "nonfinite_loss"
    assert "step" in found.error.message
    assert found.fine_tuned_model is None
    assert found.result_files
    assert steady.metric("onward_nonfinite_losses_total") > 0
