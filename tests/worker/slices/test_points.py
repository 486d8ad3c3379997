"""Runs that follow from gradients: rows wait for points, a hash ends each, and forward passes alone have no part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update

from db.contract import journal_row, methods
from db.tables import Adapter, Job, JournalStep, Point, Worker
from db.worker import journal, leases, points
from db.worker.candidates import candidates
from db.worker.journal import Step
from db.worker.points import Kept
from tests.db.inserted import a_worker
from tests.waiting import AGES
from tests.worker.slices.doubles import STEPS, Bowl, a_choice_job, leased
from worker.adapters import peft_files, restored
from worker.adapters.restored import NotKept
from worker.runs import fingerprint, recipes
from worker.slices.loop import run_slice


class Slope(Bowl):
    """A bowl that knows its gradient."""

    @staticmethod
    def _losses(trials):
        found = Bowl._losses(trials)
        return [replace(x, gradient=2 * t.params) if t.gradient else x for x, t in zip(found, trials, strict=True)]


@pytest.fixture
def torch(context, factory):
    """The same worker, with derivatives."""
    context.settings = context.settings.model_copy(update={"scorer": "torch", "point_steps": 2})
    context.scorer = Slope()
    with factory.begin() as session:
        session.execute(update(Worker).where(Worker.id == context.worker_id).values(takes="all"))
    return context


@pytest.fixture
def job(factory, context) -> str:
    with factory.begin() as session:
        method = methods.settings(name="first_order", learning_rate=1e-2)
        return a_choice_job(session, context.model, method=method)


def rows_of(factory, job_id):
    with factory.begin() as session:
        return journal.read(session, job_id)


def steps_of(factory, job_id):
    with factory.begin() as session:
        return sorted(session.scalars(select(Point.step).where(Point.job_id == job_id)))


def test_each_row_ends_with_the_hash_of_what_its_step_led_to_and_points_go_with_the_job(torch, factory, job):
    run_slice(torch)
    rows = rows_of(factory, job)
    assert len(rows) == STEPS
    assert all(len(row) == 1 + journal_row.DIGEST for row in rows)
    with factory.begin() as session:
        adapter = session.scalars(select(Adapter).where(Adapter.job_id == job)).one()
        spec = journal.history(session, job).spec
    weights = (Path(adapter.path) / peft_files.WEIGHTS).read_bytes()
    params = peft_files.params(recipes.layout(spec, torch.base), weights)
    assert journal_row.sha256(rows[-1]) == fingerprint.sha256(params)
    assert steps_of(factory, job) == []


def test_rows_wait_for_a_point_and_a_run_that_leaves_makes_one(torch, factory, job):
    run = leased(torch, job)
    run.writer.add(Step(0, [1.0, *journal_row.hashed("0" * 64)], 7), None, None, 7)
    assert run.writer.empty, "nothing can be gone on from"
    run.writer.keep(Kept(1, b"point"))
    run.writer.flush(lambda: AGES)
    assert steps_of(factory, job) == [1]
    with factory.begin() as session:
        assert session.get_one(Job, job).step == 1


def test_rows_ahead_of_their_point_are_refused_and_only_the_newest_and_the_best_stay(torch, factory, job):
    claim = leased(torch, job).claim
    row = [1.0, *journal_row.hashed("0" * 64)]
    with factory.begin() as session:
        with pytest.raises(ValueError, match="no point that it can go on from"):
            journal.flush(session, claim, [Step(0, row, 7)])
        journal.flush(session, claim, [Step(0, row, 7)], best=(1, 0.5), kept=[Kept(1, b"a")])
        journal.flush(session, claim, [Step(1, row, 7)], kept=[Kept(2, b"b")])
        journal.flush(session, claim, [Step(2, row, 7)], kept=[Kept(3, bytes(points.CHUNK_BYTES) + b"c")])
        assert points.read(session, job, 3) == bytes(points.CHUNK_BYTES) + b"c"
        assert points.read(session, job, 2) is None
    assert sorted(set(steps_of(factory, job))) == [1, 3]


def test_a_point_that_is_not_what_its_row_says_is_not_gone_on_from(torch, factory, job):
    torch.settings = torch.settings.model_copy(update={"slice_seconds": 0.0})
    run_slice(torch)
    torch.forget_all()
    with factory.begin() as session:
        history = journal.history(session, job)
        found = restored.kept(session, job, history, torch.base)
        assert found.state.step == history.step > 0
        assert np.isfinite(found.params).all()
        last = session.get_one(JournalStep, (job, history.step - 1))
        last.losses = [*last.losses[:1], *journal_row.hashed("0" * 64)]
    with factory.begin() as session, pytest.raises(NotKept, match="not what the row"):
        restored.kept(session, job, journal.history(session, job), torch.base)


def test_a_worker_of_forward_passes_neither_sees_nor_claims_it(context, torch, factory, job):
    with factory.begin() as session:
        assert candidates(session, context.model, kinds=(False,)) == []
        assert [w.autograd for w in candidates(session, context.model)] == [True]
        assert leases.claim(session, job, a_worker(session, context.model), AGES, 5) is None
        assert leases.claim(session, job, context.worker_id, AGES, 5) is not None


def test_the_hash_is_exact_in_five_numbers():
    for text in ("f" * 64, "0" * 64, fingerprint.sha256(np.arange(5, dtype=np.float32))):
        numbers = journal_row.hashed(text)
        assert (len(numbers), journal_row.sha256([0.25, *numbers])) == (journal_row.DIGEST, text)
    assert journal_row.losses([1.0, 2.0, *numbers], "first_order") == [1.0, 2.0]
    assert journal_row.losses([1.0, 9.0, 2.0, 9.0], "forward_grad") == [1.0, 2.0]
    assert journal_row.losses([1.0, 2.0], "mezo") == [1.0, 2.0]
    with pytest.raises(ValueError, match="no hash"):
        journal_row.sha256([1.0, 0.5, 1.0, 1.0, 1.0])
