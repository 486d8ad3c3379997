"""Steps that were asked for are rebuilt once, by whoever lives; runs begin with their parents' adapters."""

import hashlib
import io
import tarfile

import pytest
from sqlalchemy import delete, func, select, text, update

from db import workers
from db.contract.history import History
from db.contract.spec import ParentSpec
from db.tables import Job, JournalStep, Restoration, RestoredChunk, Worker
from db.tenant import restorations as asking
from db.worker import journal, leases, restorations
from db.worker.journal import Step
from tests.worker.slices.doubles import a_choice_job, leased, rebuilt
from worker.adapters import peft_files
from worker.runs import recipes
from worker.slices import loop
from worker.slices.restoring import Restorer

LOSSES = [[1.0, 0.5], [0.75, 0.25], [0.5, 0.125]]


@pytest.fixture
def restorer(context, as_worker):
    return Restorer(as_worker, context.settings, context.base, context.worker_id)


@pytest.fixture
def stepped(context, submit, factory):
    """A job that has taken three steps."""

    def make(**changes):
        job = submit(**changes)
        with factory.begin() as session:
            claim = leases.claim(session, job, context.worker_id, 60, 5)
            journal.flush(session, claim, [Step(n, row, 7) for n, row in enumerate(LOSSES)])
            leases.release(session, claim)
        return job

    return make


def ask(factory, job: str, step: int) -> Restoration:
    with factory.begin() as session:
        tenant = session.get_one(Job, job).tenant_id
        return asking.ask(tenant, session, asking.find(tenant, session, job, step))


def state(factory, job: str, step: int) -> Restoration | None:
    with factory.begin() as session:
        return session.get(Restoration, (job, step))


def hashed(context, factory, job: str, step: int) -> str:
    with factory.begin() as session:
        spec = journal.history(session, job).spec
    params = rebuilt(spec, context.base, LOSSES[:step]).params
    return peft_files.sha256(peft_files.weights(recipes.layout(spec, context.base), params))


def test_what_is_asked_for_twice_is_rebuilt_once_and_is_the_journals(context, factory, stepped, restorer):
    job = stepped()
    ask(factory, job, 2)
    ask(factory, job, 2)
    assert restorer.turn()
    assert not restorer.turn()
    found = state(factory, job, 2)
    assert (found.state, found.sha256) == ("ready", hashed(context, factory, job, 2))
    with factory.begin() as session:
        pieces = session.scalars(select(RestoredChunk.data).order_by(RestoredChunk.number)).all()
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert hashlib.sha256(tar.extractfile("adapter_model.safetensors").read()).hexdigest() == found.sha256
    assert found.bytes == sum(map(len, pieces))
    assert ask(factory, job, 2).state == "ready"


def test_what_a_killed_worker_was_at_is_anothers_once_it_is_silent(context, factory, stepped, restorer):
    job = stepped()
    ask(factory, job, 1)
    with factory.begin() as session:
        other = workers.register(session, model=context.model, host="there", pid=2)
        (asked,) = restorations.waiting(session, context.model)
        assert restorations.claim(session, asked, other)
    assert not restorer.turn(), "it lives"
    with factory.begin() as session:
        silent = text(f"clock_timestamp() - interval '{restorations.SILENT_SECONDS + 1} s'")
        session.execute(update(Worker).where(Worker.id == other).values(heartbeat_at=silent))
    assert restorer.turn()
    with factory.begin() as session:
        assert not restorations.ready(session, asked, other, "0" * 64, b"late"), "it is not the first one's any more"
    assert state(factory, job, 1).sha256 == hashed(context, factory, job, 1)


def test_one_of_two_has_it_and_the_other_waits_for_nobody(factory, context, stepped):
    ask(factory, stepped(), 1)
    with factory.begin() as one, factory.begin() as two:
        (asked,) = restorations.waiting(one, context.model)
        assert restorations.claim(one, asked, context.worker_id)
        assert not restorations.claim(two, asked, context.worker_id)


def test_what_was_dropped_meanwhile_is_not_kept(factory, context, stepped):
    job = stepped()
    ask(factory, job, 1)
    with factory.begin() as session:
        (asked,) = restorations.waiting(session, context.model)
        assert restorations.claim(session, asked, context.worker_id)
    with factory.begin() as session:
        assert asking.drop(asked.tenant_id, session, job)
    with factory.begin() as session:
        assert not restorations.ready(session, asked, context.worker_id, "0" * 64, b"x")
        assert session.scalar(select(func.count()).where(RestoredChunk.job_id == job)) == 0


def test_tenants_have_their_turns(factory, context, stepped):
    many, one = stepped(), stepped()
    for step in (0, 1, 2, 3):
        ask(factory, many, step)
    ask(factory, one, 1)
    with factory.begin() as session:
        order = [(asked.job_id, asked.step) for asked in restorations.waiting(session, context.model)]
    assert order[:2] == [(many, 0), (one, 1)]


def test_a_journal_that_is_gone_is_said_and_asked_for_again_after_a_while(factory, stepped, restorer, lines):
    job = stepped()
    ask(factory, job, 3)
    with factory.begin() as session:
        session.execute(delete(JournalStep).where(JournalStep.job_id == job, JournalStep.step == 1))
    assert restorer.turn()
    found = state(factory, job, 3)
    assert (found.state, found.error["code"]) == ("failed", "journal_gone")
    assert ask(factory, job, 3).state == "failed"
    with factory.begin() as session:
        session.execute(update(Restoration).values(asked_at=Restoration.asked_at - text("interval '2 minutes'")))
    assert ask(factory, job, 3).state == "asked"


def child(context, factory, parent: str, sha256: str, step: int = 2, **changes) -> str:
    """A job of the same tenant that goes on from a step of `parent`."""
    with factory.begin() as session:
        return a_choice_job(
            session, context.model, parent=ParentSpec(job=parent, step=step, sha256=sha256),
            tenant=session.get_one(Job, parent).tenant_id, **changes,
        )  # fmt: skip


def test_a_run_begins_with_its_parents_adapter_and_is_replayed_from_it(context, factory, stepped, row):
    parent = stepped()
    job = child(context, factory, parent, hashed(context, factory, parent, 2), seed=99)
    with factory.begin() as session:
        spec = journal.history(session, parent).spec
    begun = leased(context, job)
    assert begun.run.step == 0
    assert begun.run.params.tobytes() == rebuilt(spec, context.base, LOSSES[:2]).params.tobytes()
    with factory.begin() as session:
        history: History = journal.history(session, job)
    assert (history.parent.step, history.parent.spec) == (2, spec)


def test_a_parent_that_is_not_what_it_was_fails_the_job_by_name(context, factory, stepped, row):
    parent = stepped()
    changed = child(context, factory, parent, "0" * 64)
    whole = child(context, factory, parent, hashed(context, factory, parent, 3), step=3)
    with factory.begin() as session:
        session.execute(delete(JournalStep).where(JournalStep.job_id == parent, JournalStep.step == 2))
    for job, code in ((changed, "parent_changed"), (whole, "journal_gone")):
        assert leased(context, job) is None
        assert (row(job).state, row(job).error["code"]) == ("failed", code)


def test_a_child_is_trained_and_its_adapter_is_its_whole_historys(context, factory, stepped, row, restorer):
    parent = stepped()
    leased_parent = update(Job).where(Job.id == parent).values(state="paused")
    with factory.begin() as session:
        session.execute(leased_parent)
    job = child(context, factory, parent, hashed(context, factory, parent, 1), step=1)
    loop.run_slice(context)
    assert row(job).state == "succeeded"
    ask(factory, job, 0)
    assert restorer.turn()
    assert state(factory, job, 0).sha256 == hashed(context, factory, parent, 1)
