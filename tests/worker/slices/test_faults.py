"""Whose fault it was: what a slice leaves of its runs, of their neighbours and of the worker when something fails."""

import contextlib

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import ProgrammingError

from db import workers
from db.contract.spec import SPEC_VERSION
from db.tables import Adapter, FileChunk, Job, JournalStep, Lease, Worker
from db.tenant import jobs
from tests.worker.slices.doubles import STEPS, counted, leased, scored
from tests.worker.slices.test_acquire import elsewhere, expire
from tests.worker.slices.test_loop import hits_rank
from worker import metrics
from worker.runs import data
from worker.slices import acquire, loop, settle, stepping
from worker.slices.ending import Out
from worker.slices.loop import _leave as leave
from worker.slices.loop import run_slice
from worker.types import EngineOff


@pytest.fixture(autouse=True)
def nothing_is_held(context, factory):
    """After every test: no lease of this worker in the database, none that its heartbeat renews."""
    yield
    assert context.heartbeat._claims() == []
    with factory.begin() as session:
        held = select(Lease.job_id).where(Lease.worker_id == context.worker_id)
        assert list(session.scalars(held)) == []


def to_the_end(context) -> int:
    """Slices until no work is left."""
    for count in range(1, 100):
        if not run_slice(context):
            return count
    raise AssertionError("work without end")


@pytest.fixture
def batches(context):
    """The ranks of each batch, as they are scored."""
    found: list[set[int]] = []
    context.scorer.sees = lambda trials: found.append({t.layout.rank for t in trials})
    return found


def test_a_job_whose_spec_is_of_tomorrow_is_set_aside_and_its_neighbours_run(context, submit, row, factory):
    strange, good = submit(2), submit(3)
    with factory.begin() as session:
        session.execute(update(Job).where(Job.id == strange).values(spec={**row(strange).spec, "adverb": "swiftly"}))
    assert run_slice(context) is False
    assert (row(strange).state, row(strange).spec_version) == ("queued", SPEC_VERSION + 1)
    assert row(good).state == "succeeded"
    with factory.begin() as session:
        jobs.cancel(row(strange).tenant_id, session, strange)
    assert row(strange).state == "cancelled", "at once: nobody holds it"


def loads_badly(monkeypatch, error: Exception, first_rows: str) -> None:
    whole = data.FileExamples

    def load(base, rows, invocation):
        if first_rows.encode() in rows:
            raise error
        return whole(base, rows, invocation)

    monkeypatch.setattr(acquire.data, "FileExamples", load)


@pytest.fixture
def heavy(context, submit, row, factory):
    """A job that is told from others by its file."""
    job_id = submit(4)
    with factory.begin() as session:
        chunk = row(job_id).training_file
        session.execute(update(FileChunk).where(FileChunk.file_id == chunk).values(data=HEAVY.encode()))
    return job_id


HEAVY = '{"prompt": "heavy:", "choices": [" a", " b"], "label": 0}\n' * 8


@pytest.mark.parametrize(
    "error, code", [(MemoryError(), "out_of_memory"), (ZeroDivisionError("by chance"), "internal_error")]
)
def test_a_job_that_cannot_be_loaded_is_tried_alone_and_then_ends_and_stops_no_other(
    context, submit, row, heavy, monkeypatch, error, code
):
    good = submit(2)
    loads_badly(monkeypatch, error, "heavy")
    context.settings = context.settings.model_copy(update={"slice_seconds": 0.0})
    assert run_slice(context) is True
    assert (row(heavy).state, row(heavy).suspect) == ("queued", True)
    assert row(good).step == 1, "boarded and stepped beside it"
    to_the_end(context)
    assert (row(heavy).state, row(heavy).error["code"]) == ("failed", code)
    assert row(good).state == "succeeded"


def test_memory_that_kept_runs_take_is_given_to_one_that_lacks_it(context, submit, row, heavy, monkeypatch):
    kept = scored(leased(context, submit(2)), 1)
    settle.release(context, kept)
    whole = data.FileExamples

    def load(base, rows, invocation):
        if context.residents:
            raise MemoryError
        return whole(base, rows, invocation)

    monkeypatch.setattr(acquire.data, "FileExamples", load)
    settle.release(context, leased(context, heavy))
    assert not row(heavy).suspect


def test_a_job_that_cannot_even_be_claimed_stops_no_other_and_is_not_rung_for_at_once(
    context, submit, row, monkeypatch
):
    odd, good = submit(2), submit(3)
    claim = acquire.leases.claim

    def broken(session, job_id, *rest):
        if job_id == odd:
            raise ProgrammingError("SELECT", {}, Exception("no such column"))
        return claim(session, job_id, *rest)

    monkeypatch.setattr(acquire.leases, "claim", broken)
    assert run_slice(context) is False
    assert (row(odd).state, row(good).state) == ("queued", "succeeded")


def test_an_engine_that_fails_on_one_of_several_makes_suspects_in_the_row_and_only_one_ends(
    context, submit, row, given_up
):
    good, bad = submit(2), submit(3)
    context.scorer.sees = hits_rank(3, RuntimeError("an index beyond its axis"))
    assert run_slice(context) is True
    assert [row(job_id).suspect for job_id in (good, bad)] == [True, True]
    to_the_end(context)
    assert row(good).state == "succeeded"
    assert (row(bad).state, row(bad).error["code"]) == ("failed", "engine_refused")
    assert "an index beyond" in row(bad).error["message"]
    assert row(bad).deaths == []
    assert not given_up.is_set(), "its canary is what it was: the engine is not given up"


def test_where_the_engine_is_not_sound_any_more_the_worker_goes_and_nobody_is_blamed(context, submit, row, given_up):
    made = [submit(2), submit(3)]
    context.scorer.sees, context.scorer.whole = hits_rank(3, RuntimeError("illegal memory access")), False
    assert run_slice(context) is False
    assert given_up.is_set()
    assert context.heartbeat.out.reason == "engine"
    for job_id in made:
        assert (row(job_id).state, row(job_id).deaths, row(job_id).suspect) == ("queued", [], True)


def test_a_job_that_breaks_engines_ends_as_poison_and_its_neighbour_finishes(context, submit, row, given_up):
    good, bad = submit(2), submit(3)
    context.scorer.sees = hits_rank(3, RuntimeError("illegal memory access"))
    context.settings = context.settings.model_copy(update={"max_attempts": 2})
    for _ in range(20):  # each time a new worker, with a new engine
        context.heartbeat.out, context.scorer.whole = None, False
        if not run_slice(context) and context.heartbeat.out is None:
            break
    assert (row(bad).state, row(bad).error["code"], len(row(bad).deaths)) == ("failed", "poison", 2)
    assert (row(good).state, row(good).deaths) == ("succeeded", [])


def test_a_canary_off_its_floor_commits_nothing_of_the_batch_and_takes_the_worker_out_of_service(
    context, submit, row, given_up, factory
):
    made = [submit(2), submit(3)]
    calls = iter(range(100))

    def off(_):
        if next(calls) == 3:
            raise EngineOff("the canary is off by inf nats a token")

    context.scorer.sees = off
    assert run_slice(context) is False
    assert given_up.is_set()
    assert context.heartbeat.out == Out("canary", "the canary is off by inf nats a token")
    for job_id in made:
        assert (row(job_id).state, row(job_id).step, row(job_id).suspect, row(job_id).deaths) == (
            "queued",
            3,
            False,
            [],
        )
        with factory.begin() as session:
            assert len(session.scalars(select(JournalStep).where(JournalStep.job_id == job_id)).all()) == 3


@pytest.fixture
def broken_disk(context):
    """A file where the folder of adapters should be: what a disk refuses, also to root."""
    folder = context.settings.home / "adapters"
    folder.write_text("in the way")
    return folder


def test_a_disk_that_refuses_an_adapter_is_the_workers_fault_until_it_works_again(
    context, submit, row, rung, broken_disk, factory
):
    made = [submit(2), submit(3)]
    for _ in range(context.settings.max_attempts + 1):
        assert run_slice(context) is False
        assert context.heartbeat.out.reason == "disk"
        for job_id in made:
            assert (row(job_id).state, row(job_id).step) == ("queued", STEPS)
            assert (row(job_id).deaths, row(job_id).suspect) == ([], False)
        context.heartbeat.out = None
    assert run_slice(context) is False
    out = metrics.out_of_service.labels(context.model, "disk")._value
    assert out.get() == 1
    context.heartbeat.beat()
    with factory.begin() as session:
        worker = session.get_one(Worker, context.worker_id)
        assert (worker.state, worker.reason.partition(":")[0]) == ("out", "disk")
    context.heartbeat.turn(1e9)
    assert context.heartbeat.out is not None, "the disk still fails"
    broken_disk.unlink()
    context.heartbeat.turn(2e9)
    assert context.heartbeat.out is None
    assert (out.get(), rung[-1]) == (0, context.model)
    with factory.begin() as session:
        worker = session.get_one(Worker, context.worker_id)
        assert (worker.state, worker.reason) == ("ready", None)
    to_the_end(context)
    assert [row(job_id).state for job_id in made] == ["succeeded"] * 2


def test_a_disk_that_refuses_a_snapshot_is_the_workers_fault_too(context, submit, row):
    (context.settings.home / "snapshots").write_text("in the way")
    context.settings = context.settings.model_copy(update={"slice_seconds": 0.0, "snapshot_steps": 1})
    job_id = submit(2)
    assert run_slice(context) is False
    assert context.heartbeat.out.reason == "disk"
    assert (row(job_id).state, row(job_id).step) == ("queued", 1)


def test_whatever_is_raised_in_a_slice_its_claims_are_given_back(context, submit, row, monkeypatch):
    made = [submit(2), submit(3)]

    def broken(*_):
        raise KeyError("a defect")

    monkeypatch.setattr(stepping, "_enter", broken)
    with pytest.raises(KeyError):
        run_slice(context)
    assert [row(job_id).state for job_id in made] == ["queued"] * 2


def test_a_run_that_cannot_be_committed_is_given_back_and_the_others_too(context, submit, row, monkeypatch):
    made = [submit(2), submit(3)]
    context.settings = context.settings.model_copy(update={"slice_seconds": 0.0})
    whole = settle._flush

    def flush(context, leased):
        if leased.job_id == made[0]:
            raise ValueError("the journal does not go on here")
        whole(context, leased)

    monkeypatch.setattr(settle, "_flush", flush)
    run_slice(context)
    assert [row(job_id).state for job_id in made] == ["queued"] * 2


def test_jobs_that_a_dead_worker_held_are_tried_one_by_one_and_briefly(context, submit, row, batches, factory):
    made = [submit(rank) for rank in (2, 3, 4)]
    for job_id in made:
        elsewhere(context, job_id, [[1.0, 0.5]], give_back=False)
        expire(factory, job_id)
    context.settings = context.settings.model_copy(update={"slice_seconds": 0.0})
    for _ in made:
        assert run_slice(context) is True
    assert sorted(map(sorted, batches)) == [[2], [3], [4]], "each for one step"
    for job_id in made:
        (death,) = row(job_id).deaths
        assert (row(job_id).suspect, death["step"], death["alone"]) == (False, 1, False)
    run_slice(context)
    assert batches[-1] == {2, 3, 4}, "and together again"


class Killed(BaseException):
    """A worker that is no more."""


def test_a_job_that_ends_its_worker_every_second_step_is_found_out(context, submit, row, monkeypatch, factory):
    """Each of its workers takes one step and dies in the next: probations grow with deaths until one sees it."""
    job_id = submit(2, steps=100)
    context.settings = context.settings.model_copy(update={"slice_seconds": 0.0, "max_attempts": 3})
    calls = 0

    def dies(_):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed

    context.scorer.sees = dies
    monkeypatch.setattr(loop, "_leave", lambda *_: None if calls == 2 else leave(*_))  # the dead give nothing back
    for life in range(20):
        calls = 0
        with factory.begin() as session:
            context.worker_id = workers.register(session, model=context.model, host="here", pid=life)
        context.residents.clear()
        with contextlib.suppress(Killed):
            while run_slice(context):
                pass
        if row(job_id).state == "failed":
            break
        expire(factory, job_id)
    assert (row(job_id).state, row(job_id).error["code"]) == ("failed", "poison")
    assert 0 < row(job_id).step < 10, "although every one of its workers committed a step"


def test_a_cancel_accepted_when_all_steps_are_taken_is_kept(context, submit, row, monkeypatch, factory):
    """The wish comes after the last look at it, before the row ends."""
    job_id = submit(2)
    publish = settle._publish

    def published(context, leased, step):
        with factory.begin() as session:
            jobs.cancel(row(job_id).tenant_id, session, job_id)
        return publish(context, leased, step)

    monkeypatch.setattr(settle, "_publish", published)
    before = counted(metrics.jobs_ended.labels(context.model, "cancelled"))
    assert run_slice(context) is False
    assert (row(job_id).state, row(job_id).step) == ("cancelled", STEPS)
    assert counted(metrics.jobs_ended.labels(context.model, "cancelled")) == before + 1
    assert not (context.settings.home / "adapters" / job_id).exists()
    with factory.begin() as session:
        assert session.scalars(select(Adapter).where(Adapter.job_id == job_id)).all() == []


def test_a_pause_accepted_when_all_steps_are_taken_does_no_harm(context, submit, row, monkeypatch, factory):
    job_id = submit(2)
    publish = settle._publish

    def published(context, leased, step):
        with factory.begin() as session:
            jobs.pause(row(job_id).tenant_id, session, job_id)
        return publish(context, leased, step)

    monkeypatch.setattr(settle, "_publish", published)
    run_slice(context)
    assert row(job_id).state == "succeeded", "it is done"


def test_the_suspect_of_a_tenant_does_not_wait_for_its_older_job(context, submit, row, batches, factory):
    older, younger = submit(2), submit(3)
    with factory.begin() as session:
        session.execute(update(Job).where(Job.id == younger).values(suspect=True))
    context.settings = context.settings.model_copy(update={"slice_seconds": 0.0})
    run_slice(context)
    assert batches == [{3}]
    assert not row(younger).suspect
    run_slice(context)
    assert 2 in batches[1], "and neither does the older"
    to_the_end(context)
    assert (row(older).state, row(younger).state) == ("succeeded", "succeeded")
