"""Jobs that diverge under leases: stopped and settled, or gone back, whoever holds them and whoever dies meanwhile."""

import numpy as np
import pytest
from sqlalchemy import select

from db.contract import methods
from db.tables import Adapter, Event, Tenant
from db.worker import journal
from tests.worker.slices.doubles import Bowl, leased, rows
from worker.adapters import peft_files
from worker.runs import cohort, rebuilding, recipes
from worker.slices import loop, settle, stepping
from worker.slices.ending import Finished, Released
from worker.slices.resident import LeasedRun
from worker.types import Loss, Trial

STEPS, EVERY = 12, 3


class Cliff(Bowl):
    """Rows' losses of 1 to 2 before the adapter has moved, and twenty times as much once it has; a slope leads it."""

    def _losses(self, trials):
        return [self._loss(trial) for trial in trials]

    @staticmethod
    def _loss(trial: Trial) -> Loss:
        _, _, b = next(trial.layout.pairs(trial.params))
        height = 20.0 if np.abs(b).max() > 0 else 1.0
        each = [(1 + 0.1 * i) * height + float(b.sum()) for i in range(len(trial.examples))]
        return Loss(sum(each), len(each), 0, trial.tokens, tuple((x, 1) for x in each))


@pytest.fixture
def diverging(context, submit):
    """Makes a job whose held-out loss grows by more than its noise as soon as it has moved."""
    context.scorer = Cliff()

    def make(optimizer="sgd", **changes):
        method = methods.settings(name="mezo", eps=0.5, learning_rate=0.1, optimizer=optimizer)
        return submit(valid=rows(8), eval_rows=8, steps=STEPS, eval_every=EVERY, method=method, **changes)

    return make


def advanced(context, job_id: str, until) -> LeasedRun:
    """The job's run under a lease, stepped until it is as `until` says, with nothing committed."""
    run = leased(context, job_id)
    while not until(run.run):
        ((after, result),) = cohort.step([run.run], context.scorer)
        stepping._enter(context, run, after, result)
    return run


def told(factory, job_id: str) -> list[Event]:
    with factory.begin() as session:
        return list(session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.id)))


def check(context, job_id: str) -> None:
    """What is published is what the history in the database leads to."""
    with context.rows.begin() as session:
        made = session.scalars(select(Adapter).where(Adapter.job_id == job_id)).one()
        history = journal.history(session, job_id, made.step)
    point = rebuilding.rebuild(history, context.base)
    layout = recipes.layout(history.spec, context.base)
    assert peft_files.sha256(peft_files.weights(layout, point.params)) == made.sha256


def test_a_job_that_made_things_worse_says_so_stops_and_costs_what_it_ran(context, diverging, row):
    job_id = diverging(on_divergence="stop")
    loop.run_slice(context)
    job = row(job_id)
    assert (job.state, job.stopped) == ("succeeded", {"reason": "diverged", "step": job.step})
    assert job.step < job.total_steps
    assert job.best_step == 0
    with context.rows.begin() as session:
        assert session.get_one(Tenant, job.tenant_id).spent_tokens == job.scored_tokens
    events = told(context.rows, job_id)
    risen, stopped, published = [e.message for e in events if e.level == "warn"]
    assert "is above its start by more than its own noise" in risen
    assert "after step 3" in risen
    assert published.startswith("Adapter of step 0 published")
    assert stopped.startswith(f"Stopped at step {job.step} of {STEPS}: the held-out loss had left its start")
    steps = [e.data["step"] for e in events if e.type == "metrics" and "valid_loss" in e.data]
    assert steps[0] == 0
    assert all(step % EVERY == 0 for step in steps)
    check(context, job_id)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_job_that_restarts_is_rebuilt_from_its_rows(context, diverging, row, optimizer):
    job_id = diverging(optimizer, on_divergence="restart", max_restarts=1)
    loop.run_slice(context)
    job = row(job_id)
    assert job.restarts == [{"at": 4, "origin": 0}]
    (went,) = [e for e in told(context.rows, job_id) if "Went back" in e.message]
    assert (went.level, went.data) == ("warn", {"step": 4, "origin": 0})
    assert job.stopped == {"reason": "diverged", "step": 7}
    check(context, job_id)


@pytest.mark.parametrize("lost", ["before it is committed", "after it is committed"])
def test_a_worker_that_dies_at_a_restart_leaves_a_job_that_restarts_the_same(context, diverging, row, lost):
    whole = diverging(on_divergence="restart", max_restarts=1)
    loop.run_slice(context)
    job_id = diverging(on_divergence="restart", max_restarts=1)
    run = advanced(context, job_id, lambda run: run.watch.restarts)
    if lost.startswith("after"):
        run.writer.flush(lambda: 0.0)
    settle.let_go(context, run.claim, Released())
    assert bool(row(job_id).restarts) == lost.startswith("after")
    again = leased(context, job_id)
    assert bool(again.run.watch.restarts) == lost.startswith("after")
    if again.run.watch.restarts:
        assert again.run.params.tobytes() == run.run.params.tobytes()
        assert again.resident.prefix.hex() == run.resident.prefix.hex()
    settle.release(context, again)
    loop.run_slice(context)
    assert row(job_id).restarts == row(whole).restarts
    check(context, job_id)


def test_a_stop_that_was_decided_is_kept_by_whoever_takes_over(context, diverging, row):
    job_id = diverging(on_divergence="stop")
    run = advanced(context, job_id, lambda run: run.done)
    run.writer.flush(lambda: 0.0)
    settle.let_go(context, run.claim, Released())
    again = leased(context, job_id)
    assert (again.run.stopped, again.run.step, again.run.done) == ("diverged", run.run.step, True)
    settle.settle(context, again, Finished())
    assert row(job_id).stopped == {"reason": "diverged", "step": run.run.step}
    check(context, job_id)
