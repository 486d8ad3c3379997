"""From a waiting job to a leased run: what it starts from, and when there is none."""

import numpy as np
import pytest
from sqlalchemy import text, update

from db import workers
from db.contract.sampling import split
from db.tables import Job, Lease
from db.worker import journal, leases
from db.worker.candidates import Waiting
from db.worker.journal import Step
from tests.worker.slices.doubles import STEPS, counted, leased, rebuilt, rows, scored
from worker import metrics
from worker.adapters.snapshots import Prefix
from worker.runs import data
from worker.runs.replay import Point
from worker.slices import settle
from worker.slices.acquire import acquire

MANY = [[1.0, 0.5], [0.75, 0.25], [0.5, 0.125]]


def events(lines) -> list[str]:
    return [line["event"] for line in lines]


def expire(factory, job_id: str) -> None:
    with factory.begin() as session:
        session.execute(update(Lease).where(Lease.job_id == job_id).values(expires_at=text("clock_timestamp()")))


def elsewhere(context, job_id: str, losses, give_back: bool = True) -> None:
    """Another worker takes the job's next steps."""
    with context.rows.begin() as session:
        other = workers.register(session, model=context.model, host="there", pid=2)
        claim = leases.claim(session, job_id, other, 60, 5)
        journal.flush(session, claim, [Step(claim.step + i, row, 7) for i, row in enumerate(losses)])
        if give_back:
            leases.release(session, claim)


def test_a_fresh_job_starts_at_its_first_step_under_a_lease(context, submit, row, lines):
    run = leased(context, submit())
    assert (run.run.step, run.claim.token, run.claim.worker_id) == (0, 1, context.worker_id)
    assert row(run.job_id).state == "running"
    assert context.heartbeat.until(run.job_id) > 0
    assert events(lines) == ["started"]
    assert run.writer.empty


@pytest.mark.parametrize("waited, foretold, ratio", [(40, 10, 0.25), (10, 40, 4.0), (0, 0.2, 1.0)])
def test_what_was_foretold_of_a_wait_is_measured_at_its_end(context, submit, factory, waited, foretold, ratio):
    job = submit()
    with factory.begin() as session:
        made = text(f"clock_timestamp() - interval '{waited} s'")
        session.execute(update(Job).where(Job.id == job).values(created_at=made))
        told = Job.created_at + text(f"interval '{foretold} s'")
        session.execute(update(Job).where(Job.id == job).values(expected_start=told))
    first = leased(context, job)
    assert metrics.wait_estimate_ratio.labels(context.model)._sum.get() == pytest.approx(ratio, rel=0.2)
    settle.release(context, first)
    leased(context, job)
    assert counted(metrics.wait_estimate_ratio.labels(context.model)) == 1  # the first claim only


def test_a_resident_run_goes_on_and_is_not_read_again(context, submit, lines):
    first = scored(leased(context, submit()), 3)
    settle.release(context, first)
    again = leased(context, first.job_id)
    assert again.resident is first.resident
    assert (again.run.step, again.claim.token) == (3, 2)
    assert events(lines) == ["started"]


def test_a_resident_run_that_another_worker_took_further_is_replayed(context, submit, lines):
    """Its claim's writer, too, is a new one: what the old one had is the old claim's."""
    first = scored(leased(context, submit()), 1)
    settle.release(context, first)
    elsewhere(context, first.job_id, MANY[:2])
    again = leased(context, first.job_id)
    assert again.resident is not first.resident
    assert again.writer is not first.writer
    assert (again.run.step, again.claim.token) == (3, 3)
    assert events(lines) == ["started", "replayed"]
    with context.rows.begin() as session:
        whole = rebuilt(again.claim.spec, context.base, journal.read(session, again.claim))
    assert again.run.params.tobytes() == whole.params.tobytes()


def test_a_run_that_is_not_resident_is_replayed_to_the_bit(context, submit):
    job_id = submit()
    elsewhere(context, job_id, MANY)
    run = leased(context, job_id)
    assert run.run.step == 3
    assert run.run.params.tobytes() == rebuilt(run.claim.spec, context.base, MANY).params.tobytes()
    assert run.resident.prefix.hex() == Prefix(run.claim.spec, MANY).hex()
    assert run.resident.snapshot == 3


@pytest.mark.parametrize("taken", [1, 3])
def test_a_snapshot_on_the_journal_is_used(context, submit, taken):
    """It is told from a replay by params that no journal leads to."""
    job_id = submit()
    elsewhere(context, job_id, MANY)
    spec = leased(context, job_id).claim.spec
    expire(context.rows, job_id)
    settle.drop(context, job_id)
    start = rebuilt(spec, context.base, MANY[:taken])
    marked = Point(start.params + np.float32(1.0), start.state)
    context.snapshots.write(job_id, marked, Prefix(spec, MANY[:taken]).hex())
    run = leased(context, job_id)
    assert run.run.step == 3
    assert run.run.params.tobytes() == rebuilt(spec, context.base, MANY, marked).params.tobytes()
    assert run.run.params.tobytes() != rebuilt(spec, context.base, MANY).params.tobytes()


def test_a_snapshot_of_another_journal_is_not_used(context, submit):
    job_id = submit()
    elsewhere(context, job_id, MANY)
    spec = leased(context, job_id).claim.spec
    expire(context.rows, job_id)
    settle.drop(context, job_id)
    other = rebuilt(spec, context.base, [[9.0, 1.0]])
    context.snapshots.write(job_id, other, Prefix(spec, [[9.0, 1.0]]).hex())
    run = leased(context, job_id)
    assert run.run.params.tobytes() == rebuilt(spec, context.base, MANY).params.tobytes()


def test_rows_that_cannot_be_read_end_the_job(context, submit, row, lines):
    job_id = submit(valid=b"no row\n", eval_rows=4)
    before = counted(metrics.jobs_ended.labels(context.model, "unreadable_rows"))
    assert leased(context, job_id) is None
    assert (row(job_id).state, row(job_id).error["code"]) == ("failed", "unreadable_rows")
    assert context.heartbeat.until(job_id) == 0.0
    assert counted(metrics.jobs_ended.labels(context.model, "unreadable_rows")) == before + 1
    assert events(lines) == ["refused"]


def test_held_out_rows_are_read_where_there_are_any(context, submit):
    assert len(leased(context, submit(valid=rows(8), eval_rows=4)).run.data.valid) == 4
    assert leased(context, submit(valid=None, eval_rows=4)).run.data.valid == ()


def test_rows_held_out_of_the_training_file_are_measured_on_and_not_trained_on(context, submit):
    run = leased(context, submit(valid=None, eval_rows=2, held_out=3)).run
    trained, kept = split(run.spec.seed, 8, 3)
    whole = data.examples(context.base, rows(8))
    assert [e.sequences[0].tolist() for e in run.data.train] == [whole[i].sequences[0].tolist() for i in trained]
    assert [e.sequences[0].tolist() for e in run.data.valid] == [whole[i].sequences[0].tolist() for i in kept[:2]]
    assert run.evaluation_due


def test_a_job_of_a_dead_worker_is_taken_over_and_counted(context, submit):
    job_id = submit()
    elsewhere(context, job_id, MANY, give_back=False)
    expire(context.rows, job_id)
    before = counted(metrics.lease_expiries.labels(context.model))
    run = leased(context, job_id)
    assert (run.run.step, run.claim.took_over) == (3, True)
    assert counted(metrics.lease_expiries.labels(context.model)) == before + 1


def test_where_another_worker_was_faster_there_is_no_run(context, submit, row):
    job_id = submit()
    seen = Waiting(job_id, "ten_x", "standard", 1.0, row(job_id).created_at, 0)
    elsewhere(context, job_id, MANY, give_back=False)
    assert acquire(context, seen) is None
    assert context.heartbeat.until(job_id) == 0.0
    assert row(job_id).fence == 1


def test_a_poisonous_job_ends_and_gives_no_run(context, submit, row):
    job_id = submit()
    for _ in range(context.settings.max_attempts):
        with context.rows.begin() as session:
            leases.blame(session, leased(context, job_id).claim)
    assert leased(context, job_id) is None
    assert row(job_id).error["code"] == "poison"


def test_only_a_first_claim_tells_how_long_the_job_waited(context, submit):
    waits = metrics.queue_wait_seconds.labels(context.model, "standard")
    job_id = submit()
    settle.release(context, leased(context, job_id))
    leased(context, job_id)
    assert counted(waits) == 1


def test_the_run_is_the_tenants_and_of_the_jobs_own_spec(context, submit, row):
    run = leased(context, submit(rank=3))
    job = row(run.job_id)
    assert (run.run.spec.adapter.rank, run.run.spec.steps) == (3, STEPS)
    assert (run.run.scope, run.tenant_class) == (job.tenant_id, "standard")
