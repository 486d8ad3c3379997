"""Slices on a real database with a scorer that computes its losses: what an engine's failure does, and to whom."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from db.tables import Job
from tests.worker.slices.doubles import STEPS
from worker.settings import WorkerSettings
from worker.slices.loop import run_slice
from worker.types import Trial


def state(factory, job_id: str) -> tuple[str, int]:
    with factory.begin() as session:
        job = session.get_one(Job, job_id)
        return job.state, job.step


def hits_rank(rank: int, error: Exception) -> Callable[[Sequence[Trial]], None]:
    def sees(trials: Sequence[Trial]) -> None:
        if any(t.layout is not None and t.layout.rank == rank for t in trials):
            raise error

    return sees


def test_a_cohort_runs_to_its_end_in_one_slice(context, factory, submit):
    made = [submit(2), submit(3)]
    assert run_slice(context) is False
    assert [state(factory, job) for job in made] == [("succeeded", STEPS)] * 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_worker_that_leaves_jobs_to_others_rings_for_them_before_it_steps(context, submit, rung, jobs):
    context.settings = context.settings.model_copy(update={"cohort": 1})
    for _ in range(jobs):
        submit(2)
    heard: list[int] = []
    context.scorer.sees = lambda _: heard.append(len(rung))
    run_slice(context)
    assert set(heard) == {jobs - 1}


def test_a_job_of_cheap_steps_is_not_held_back_by_one_of_dear_steps(context, factory, submit):
    """Steps of 2 rows beside steps of 64: the cheap job ends long before the other's sixth step, in the same slice."""
    dear, cheap = submit(2, batch_size=64), submit(3)
    batches: list[set[int]] = []
    context.scorer.sees = lambda trials: batches.append({t.layout.rank for t in trials})
    assert run_slice(context) is False
    assert [state(factory, job) for job in (dear, cheap)] == [("succeeded", STEPS)] * 2
    assert batches[:2] == [{2, 3}] * 2  # what a step costs is known after the first
    assert batches[2:] == [{3}] * (STEPS - 2) + [{2}] * (STEPS - 2)


def test_a_run_the_engine_refuses_fails_alone_and_the_others_finish(context, factory, submit, given_up):
    good, bad, fine = submit(2), submit(3), submit(4)
    context.scorer.sees = hits_rank(3, ValueError("token out of range"))
    while run_slice(context):
        pass
    assert state(factory, good) == state(factory, fine) == ("succeeded", STEPS)
    assert state(factory, bad) == ("failed", 0)
    with factory.begin() as session:
        assert session.get_one(Job, bad).error["code"] == "engine_refused"
        assert "token out of range" in session.get_one(Job, bad).error["message"]
    assert not given_up.is_set()


def test_an_engine_that_breaks_on_one_job_alone_ends_the_process_and_counts_as_a_death(
    context, factory, submit, row, given_up
):
    job = submit(3)
    context.scorer.sees = hits_rank(3, RuntimeError("engine core died"))
    context.scorer.whole = False
    assert run_slice(context) is False
    assert given_up.is_set()
    assert state(factory, job) == ("queued", 0), "it is given back: no lease has to run out"
    (death,) = row(job).deaths
    assert (death["worker"], death["token"], death["step"], death["alone"]) == (context.worker_id, 1, 0, True)
    assert row(job).suspect


def test_what_was_scored_before_the_engine_broke_is_committed(context, factory, submit):
    made = [submit(2), submit(3)]
    calls = iter(range(100))

    def sees(trials: Sequence[Trial]) -> None:
        if next(calls) == 3:
            raise RuntimeError("out of memory")

    context.scorer.sees = sees
    assert run_slice(context) is True
    assert [state(factory, job) for job in made] == [("queued", 3)] * 2
    while run_slice(context):
        pass
    assert [state(factory, job) for job in made] == [("succeeded", STEPS)] * 2


def test_draining_leaves_work_to_others(context, factory, submit):
    job = submit(2)
    context.heartbeat.draining.set()
    assert run_slice(context) is False
    assert state(factory, job) == ("queued", 0)


def test_settings_name_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("ONWARD_MODEL", raising=False)
    with pytest.raises(ValueError, match="model"):
        WorkerSettings(home=tmp_path)
