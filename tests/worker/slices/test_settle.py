"""How a run leaves a worker: what each ending, a release and a drop leave behind."""

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from db import files
from db.contract.receipts import form, signing
from db.tables import Adapter, Event, File, Job, JournalStep, Lease, Result
from db.tenant import curves, jobs
from db.worker.leases import LeaseLost
from tests.worker.adapters.received import KEY
from tests.worker.slices.doubles import STEPS, Time, Unreliable, counted, leased, rebuilt, scored
from worker import metrics
from worker.adapters import receipt
from worker.adapters.publish import publish
from worker.adapters.snapshots import Prefix
from worker.runs import drift
from worker.runs.replay import Point
from worker.slices import settle
from worker.slices.ending import Failed, Finished, Lost, Obeyed
from worker.slices.receipts import Receipts
from worker.types import EngineOff, Trial


@pytest.fixture
def run(context, submit):
    """A leased run with all its steps scored and none committed."""
    return scored(leased(context, submit()), STEPS)


@pytest.fixture
def half(context, submit):
    """A leased run with half its steps scored and none committed."""
    return scored(leased(context, submit()), STEPS // 2)


def committed(factory, job_id: str) -> list[int]:
    with factory.begin() as session:
        return list(session.scalars(select(JournalStep.step).where(JournalStep.job_id == job_id)))


def adapter(factory, job_id: str) -> Adapter | None:
    with factory.begin() as session:
        return session.scalar(select(Adapter).where(Adapter.job_id == job_id))


def lease(factory, job_id: str) -> Lease | None:
    with factory.begin() as session:
        return session.get(Lease, job_id)


def lose(factory, job_id: str) -> None:
    with factory.begin() as session:
        session.execute(update(Lease).where(Lease.job_id == job_id).values(expires_at=text("clock_timestamp()")))


def ended(context, outcome: str) -> float:
    return counted(metrics.jobs_ended.labels(context.model, outcome))


def unknown(context, job_id: str) -> bool:
    """Whether the worker has nothing of the job any more."""
    return job_id not in context.residents and context.heartbeat.until(job_id) == 0.0


def test_a_finished_run_is_committed_published_and_let_go(context, run, row, lines):
    settle.settle(context, run, Finished())
    assert committed(context.rows, run.job_id) == list(range(STEPS))
    assert (row(run.job_id).state, row(run.job_id).step) == ("succeeded", STEPS)
    made = adapter(context.rows, run.job_id)
    assert made.step == STEPS
    assert (context.settings.home / "adapters" / run.job_id / "adapter_model.safetensors").is_file()
    assert unknown(context, run.job_id)
    assert lease(context.rows, run.job_id) is None
    assert ended(context, "succeeded") == 1
    assert [x["event"] for x in lines] == ["started", "finished"]


def drift_of(context, job_id: str) -> float | None:
    """As the tenant's API has it."""
    with context.rows.begin() as session:
        return curves.drift(session.get_one(Job, job_id).tenant_id, session, job_id)


def test_the_drift_of_what_is_published_is_measured_once_and_costs_the_tenant_nothing(context, run, row):
    asked: list[Trial] = []
    context.scorer.compares = asked.extend
    best = run.run.point
    run.resident.run = replace(run.run, best=(STEPS, 0.25), best_point=best)
    settle.settle(context, run, Finished())
    (trial,) = asked
    assert (trial.layout, trial.params is best.params) == (run.run.layout, True)
    assert trial.scope == run.claim.tenant_id, "its invocation is in what is kept of it"
    assert drift_of(context, run.job_id) == pytest.approx(float(np.square(best.params).sum()))  # what the double says
    with context.rows.begin() as session:
        written = session.scalars(select(JournalStep.tokens).where(JournalStep.job_id == run.job_id)).all()
        told = session.scalars(select(Event).where(Event.job_id == run.job_id).order_by(Event.number)).all()
    assert row(run.job_id).scored_tokens == sum(written)
    data = [e.data for e in told if e.type == "metrics"]
    assert data[-1] == {"step": STEPS, "total_steps": STEPS, "drift": drift_of(context, run.job_id)}
    assert sum("drift" in one for one in data) == 1


def test_a_failed_run_with_a_best_has_its_drift(context, half):
    half.resident.run = replace(half.run, best=(half.run.step, 0.25))
    settle.settle(context, half, Failed("nonfinite_loss", "losses were not finite"))
    assert drift_of(context, half.job_id) is not None


@pytest.mark.parametrize("wrong", [RuntimeError("engine core died"), EngineOff("the canary is off")])
def test_a_drift_that_cannot_be_measured_is_in_no_results_way(context, run, row, lines, wrong):
    def broken(_):
        raise wrong

    context.scorer.compares = broken
    settle.settle(context, run, Finished())
    assert row(run.job_id).state == "succeeded"
    assert adapter(context.rows, run.job_id) is not None
    assert drift_of(context, run.job_id) is None
    assert [x["event"] for x in lines] == ["started", "drift not measured", "finished"]


def test_a_drift_that_is_no_number_is_not_told(context, run, row, monkeypatch):
    monkeypatch.setattr(drift, "measured", lambda *_: float("nan"))
    settle.settle(context, run, Finished())
    assert row(run.job_id).state == "succeeded"
    assert drift_of(context, run.job_id) is None


def test_what_leaves_without_an_adapter_is_not_measured(context, half):
    context.scorer.compares = lambda _: pytest.fail("nothing is published")
    settle.settle(context, half, Failed("nonfinite_loss", "losses were not finite"))


@pytest.mark.parametrize("secret", [KEY, None], ids=["signed", "unsigned"])
def test_what_is_published_leaves_a_receipt_that_gives_it_back(context, run, secret):
    context.receipts = Receipts({"dtype": "float32"}, secret)
    settle.settle(context, run, Finished())
    with context.rows.begin() as session:
        kept = session.get_one(Result, (run.job_id, "receipt"))
        data = b"".join(files.read(session, kept.file_id))
        training = session.get_one(File, run.claim.spec.training_file).sha256
    found = form.read(data)
    assert receipt.rebuilt(found, context.base)
    made = adapter(context.rows, run.job_id)
    assert (found.adapter.sha256, found.adapter.name, found.adapter.step) == (made.sha256, made.name, made.step)
    assert (found.told[0].job, found.told[0].training) == (run.job_id, training)
    if secret:
        assert signing.check(found, (signing.public_of(secret),))
    else:
        assert found.signatures == ()


def test_without_the_bases_files_an_adapter_is_published_all_the_same(context, run, row, lines, tmp_path):
    context.base = replace(context.base, path=tmp_path / "gone")
    settle.settle(context, run, Finished())
    assert row(run.job_id).state == "succeeded"
    assert "no receipt" in [line["event"] for line in lines]
    with context.rows.begin() as session:
        assert session.get(Result, (run.job_id, "receipt")) is None


@pytest.mark.parametrize("known", ["in memory", "in the journal", "in the journal, after a snapshot"])
def test_the_best_step_is_published_from_where_it_is_known(context, run, tmp_path, known):
    """What is in memory or a snapshot is told from a replay of the journal by params that no journal leads to."""
    spec, losses = run.claim.spec, [list(step.losses) for step in run.writer.steps]
    best = rebuilt(spec, context.base, losses[:2])
    run.resident.run = replace(run.run, best=(2, 0.25))
    if known == "in memory":
        best = Point(best.params + np.float32(1.0), best.state)
        run.resident.run = replace(run.run, best_point=best)
    if known == "in the journal, after a snapshot":
        start = rebuilt(spec, context.base, losses[:1])
        marked = Point(start.params + np.float32(1.0), start.state)
        context.snapshots.write(run.job_id, marked, Prefix(spec, losses[:1]).hex())
        best = rebuilt(spec, context.base, losses[:2], marked)
    settle.settle(context, run, Finished())
    made = adapter(context.rows, run.job_id)
    wanted = publish(tmp_path / "elsewhere", run.job_id, made.name, spec, context.base, best)
    assert (made.step, made.sha256) == (2, wanted.sha256)
    assert not (context.settings.home / "snapshots" / run.job_id).exists()


def test_a_failed_run_says_why_and_has_no_adapter_without_a_best(context, half, row, lines):
    settle.settle(context, half, Failed("nonfinite_loss", "no loss was finite"))
    job = row(half.job_id)
    assert (job.state, job.step) == ("failed", STEPS // 2)
    assert job.error == {"code": "nonfinite_loss", "message": "no loss was finite", "param": None}
    assert adapter(context.rows, half.job_id) is None
    assert unknown(context, half.job_id)
    assert ended(context, "nonfinite_loss") == 1
    assert lines[-1]["event"] == "failed"


def test_a_failed_run_keeps_its_best(context, half):
    half.resident.run = replace(half.run, best=(1, 0.25))
    settle.settle(context, half, Failed("nonfinite_loss", "no loss was finite"))
    assert adapter(context.rows, half.job_id).step == 1


@pytest.mark.parametrize("wish, state, outcome", [("pause", "paused", "paused"), ("cancel", "cancelled", "cancelled")])
def test_a_wish_is_obeyed_with_every_scored_step_committed(context, half, row, lines, wish, state, outcome):
    with context.rows.begin() as session:
        getattr(jobs, wish)(half.claim.tenant_id, session, half.job_id)
    settle.settle(context, half, Obeyed(wish))
    assert (row(half.job_id).state, row(half.job_id).step) == (state, STEPS // 2)
    assert lease(context.rows, half.job_id) is None
    assert context.heartbeat.until(half.job_id) == 0.0
    assert (half.job_id in context.residents) == (wish == "pause"), "only what is paused will go on"
    assert ended(context, outcome) == 1
    assert (lines[-1]["event"], lines[-1]["wish"]) == ("obeyed", wish)


def test_a_pause_that_was_taken_back_since_it_was_seen_gives_the_job_back(context, half, row):
    with context.rows.begin() as session:
        jobs.pause(half.claim.tenant_id, session, half.job_id)
        jobs.resume(half.claim.tenant_id, session, half.job_id)
    settle.settle(context, half, Obeyed("pause"))
    assert (row(half.job_id).state, row(half.job_id).step) == ("queued", STEPS // 2)


@pytest.mark.parametrize("how", [Finished(), Failed("a_code", "a reason"), Obeyed("cancel"), Lost()])
def test_a_run_whose_lease_is_lost_writes_nothing(context, run, row, how):
    before = counted(metrics.fenced_writes.labels(context.model))
    lose(context.rows, run.job_id)
    with pytest.raises(LeaseLost):
        settle.settle(context, run, how)
    assert committed(context.rows, run.job_id) == []
    assert (row(run.job_id).state, row(run.job_id).error) == ("running", None)
    assert adapter(context.rows, run.job_id) is None
    assert counted(metrics.fenced_writes.labels(context.model)) == before + 1


def test_a_run_that_has_nothing_to_commit_is_lost_all_the_same(context, run, row):
    run.writer.flush(lambda: 0.0)
    with pytest.raises(LeaseLost):
        settle.settle(context, run, Lost())
    assert row(run.job_id).state == "running"


def test_a_lease_lost_between_the_last_step_and_the_end_is_refused_and_counted(context, run, row):
    """The steps are in; the end is not, though the adapter's files lie there for whoever takes over."""
    run.writer.flush(lambda: 0.0)
    before = counted(metrics.fenced_writes.labels(context.model))
    lose(context.rows, run.job_id)
    with pytest.raises(LeaseLost):
        settle.settle(context, run, Finished())
    assert row(run.job_id).state == "running"
    assert counted(metrics.fenced_writes.labels(context.model)) == before + 1


def test_an_end_is_tried_again_while_the_database_is_away(context, run, row):
    run.writer.clock = Time().clock  # stands still: the lease lasts
    run.writer.factory = Unreliable(context.factory, "away")
    context.factory = Unreliable(context.factory, "away", "away")
    settle.settle(context, run, Finished())
    assert row(run.job_id).state == "succeeded"
    assert context.factory.begun == 3


def test_an_end_that_cannot_be_written_before_the_lease_runs_out_is_raised(context, run, row):
    time = Time()
    time.now = context.heartbeat.until(run.job_id) - 1.0
    run.writer.clock = time.clock
    run.writer.factory = Unreliable(context.factory, *["away"] * 100)
    with pytest.raises(OperationalError):
        settle.settle(context, run, Finished())
    assert sum(time.slept) <= 1.0
    assert row(run.job_id).state == "running"


def test_a_disk_that_is_away_is_raised_and_the_job_has_not_ended(context, run, row):
    (context.settings.home / "adapters").write_text("no folder")
    with pytest.raises(OSError, match="adapters"):
        settle.settle(context, run, Finished())
    assert (row(run.job_id).state, row(run.job_id).step) == ("running", STEPS)


def test_a_released_run_is_committed_given_back_and_stays_resident(context, half, row):
    settle.release(context, half)
    assert (row(half.job_id).state, row(half.job_id).step) == ("queued", STEPS // 2)
    assert context.residents[half.job_id] is half.resident
    assert context.heartbeat.until(half.job_id) == 0.0
    assert not (context.settings.home / "snapshots" / half.job_id).exists()


def test_a_run_that_went_far_enough_leaves_a_snapshot(context, half):
    context.settings = context.settings.model_copy(update={"snapshot_steps": STEPS // 2})
    losses = [step.losses for step in half.writer.steps]
    settle.release(context, half)
    found = context.snapshots.newest(half.job_id, half.claim.spec, losses, type(half.run.state))
    assert found is not None
    assert found.params.tobytes() == half.run.params.tobytes()
    assert half.resident.snapshot == STEPS // 2


def test_a_release_that_is_refused_drops_the_run_and_raises_nothing(context, half, lines):
    lose(context.rows, half.job_id)
    settle.release(context, half)
    assert unknown(context, half.job_id)
    assert lines[-1]["event"] == "lease lost"


def test_a_release_that_cannot_be_written_drops_the_run_and_raises_nothing(context, half, row, lines):
    time = Time()
    time.now = context.heartbeat.until(half.job_id)
    half.writer.clock = time.clock
    half.writer.factory = Unreliable(context.factory, "away")
    settle.release(context, half)
    assert unknown(context, half.job_id)
    assert (lines[-1]["event"], row(half.job_id).state) == ("dropped", "running")
