"""Adapters made to be worn, from a real database's bytes: the bits that training had, or a refusal that says why."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save
from sqlalchemy import delete, func, select, update

from db import files
from db.contract import methods
from db.contract.history import Restart
from db.contract.spec import AdapterSpec
from db.contract.tokens.base_model import open_base
from db.store.opening import Stores, carrying
from db.tables import Adapter, File, FileChunk, Job, JournalStep, Result
from db.worker import journal, leases
from db.worker.journal import Step
from tests.worker.slices.doubles import STEPS, rebuilt
from tests.worker.slices.test_points import Slope
from worker.adapters import base_files, peft_files
from worker.adapters.snapshots import Prefix, Snapshots
from worker.runs import rebuilding, recipes
from worker.serving import fit, making
from worker.serving.fit import Unfit
from worker.serving.making import Maker, Unknown
from worker.slices.loop import run_slice
from worker.slices.receipts import Receipts

LOSSES = [[1.0, 0.5], [0.75, 0.25], [0.5, 0.125], [0.25, 0.5]]


@pytest.fixture
def maker(context, as_worker):
    """As the worker's own role: another tenant's rows are shown to nobody who does not say whose they are."""
    return Maker(
        carrying(as_worker, Stores(context.settings)), context.base, 64, Snapshots(context.settings.home / "s")
    )


@pytest.fixture
def stepped(context, submit, factory):
    """A job that has taken four steps, and goes on."""

    def make(restarts=(), **changes):
        job = submit(**changes)
        with factory.begin() as session:
            claim = leases.claim(session, job, context.worker_id, 60, 5)
            journal.flush(session, claim, [Step(n, row, 7) for n, row in enumerate(LOSSES)], restarts=restarts)
            leases.release(session, claim)
        return job

    return make


@pytest.fixture
def published(context, submit, row):
    """A job that has ended, with its receipt."""

    def make(**changes):
        context.receipts = Receipts({"onward": "test"})
        job = submit(**changes)
        run_slice(context)
        assert row(job).state == "succeeded"
        return job

    return make


def spec_of(factory, job):
    with factory.begin() as session:
        return journal.history(session, job).spec


def adapter_of(factory, job):
    with factory.begin() as session:
        return session.scalars(select(Adapter).where(Adapter.job_id == job)).one()


def tampered(factory, job, change, honest=True):
    """The published directory of the job with other files; where `honest` the row has the hash of its weights."""
    with factory.begin() as session:
        row = session.scalars(select(Adapter).where(Adapter.job_id == job)).one()
        inside = peft_files.unpacked(b"".join(files.read(session, row.file_id)))
        inside |= change(inside)
        tar = peft_files.tar(inside)
        session.execute(delete(FileChunk).where(FileChunk.file_id == row.file_id))
        for n, start in enumerate(range(0, len(tar), 2**20)):
            piece = tar[start : start + 2**20]
            session.add(FileChunk(file_id=row.file_id, number=n, tenant_id=row.tenant_id, data=piece))
        session.execute(update(File).where(File.id == row.file_id).values(bytes=len(tar)))
        if honest:
            row.sha256 = peft_files.sha256(inside[peft_files.WEIGHTS])


def test_any_committed_step_of_a_job_that_goes_on_is_the_journals_to_the_bit(context, factory, stepped, maker):
    job = stepped()
    spec = spec_of(factory, job)
    for step in range(5):
        made = maker.make(job, step)
        assert made.layout == recipes.layout(spec, context.base)
        assert made.params.tobytes() == rebuilt(spec, context.base, LOSSES[:step]).params.tobytes()


def test_a_next_step_is_replayed_from_the_last_and_a_snapshot_saves_the_rest(
    context, factory, stepped, maker, monkeypatch
):
    job = stepped()
    spec = spec_of(factory, job)
    begun = []
    whole = rebuilding.rebuild
    monkeypatch.setattr(
        rebuilding,
        "rebuild",
        lambda h, b, start: whole(h, b, start) if begun.append(start.state.step) is None else None,
    )
    near = maker.make(job, 2).point
    exact = rebuilt(spec, context.base, LOSSES).params.tobytes()
    assert maker.make(job, 4, near).params.tobytes() == exact
    point = rebuilt(spec, context.base, LOSSES[:3])
    maker.snapshots.write(job, point, Prefix(spec, LOSSES[:3]).hex())
    assert maker.make(job, 4, near).params.tobytes() == exact
    assert maker.make(job, 2, maker.make(job, 4).point).params.tobytes() == near.params.tobytes()
    assert begun == [0, 2, 3, 3, 0], "what lies behind the step is of no use"


def test_the_point_of_who_trains_it_is_worn_as_it_is(context, factory, stepped, maker):
    """Nothing is read of the journal, and what is not fit is refused all the same."""
    job = stepped()
    point = rebuilt(spec_of(factory, job), context.base, LOSSES[:3])
    with factory.begin() as session:
        session.execute(delete(JournalStep).where(JournalStep.job_id == job))
    assert maker.make(job, 3, point).params is point.params
    with pytest.raises(Unfit, match="no finite numbers"):
        maker.make(job, 3, replace(point, params=np.full_like(point.params, np.nan)))
    with pytest.raises(Unknown):
        maker.make(job, 2, point)


def test_what_a_slice_tells_of_is_what_its_journal_leads_to(context, factory, submit, maker):
    told = []
    context.committed = lambda job, point: told.append((job, point))
    job = submit()
    run_slice(context)
    assert told
    with factory.begin() as session:
        losses = journal.read(session, job)
    spec = spec_of(factory, job)
    for named, point in told:
        assert named == job
        assert point.params.tobytes() == rebuilt(spec, context.base, losses[: point.state.step]).params.tobytes()


def test_a_run_that_went_back_is_served_as_it_goes_on(context, factory, stepped, maker):
    job = stepped(restarts=(Restart(at=3, origin=1),))
    spec = spec_of(factory, job)
    near = maker.make(job, 2).point
    back, on = maker.make(job, 3, near), maker.make(job, 4, near)
    assert back.params.tobytes() == rebuilt(spec, context.base, LOSSES[:1]).params.tobytes()
    with factory.begin() as session:
        history = journal.history(session, job)
    assert on.params.tobytes() == rebuilding.rebuild(history, context.base).params.tobytes()
    assert on.params.tobytes() != rebuilt(spec, context.base, LOSSES).params.tobytes()


def test_a_published_adapter_is_its_file_and_its_earlier_steps_are_the_journals(context, factory, published, maker):
    job = published()
    made = maker.make(job, STEPS)
    weights = peft_files.weights(made.layout, made.params)
    assert peft_files.sha256(weights) == adapter_of(factory, job).sha256
    assert made.point is None, "nothing was replayed"
    with factory.begin() as session:
        losses = journal.read(session, job)
    assert (
        maker.make(job, 2).params.tobytes() == rebuilt(spec_of(factory, job), context.base, losses[:2]).params.tobytes()
    )
    with factory.begin() as session:
        row = session.scalars(select(Adapter).where(Adapter.job_id == job)).one()
        session.execute(delete(FileChunk).where(FileChunk.file_id == row.file_id))
    again = maker.make(job, STEPS)
    assert again.point is not None, "its bytes are gone, and it was replayed"
    assert again.params.tobytes() == made.params.tobytes()


def test_an_adapter_that_followed_from_gradients_is_served_at_the_points_that_are_kept(
    context, factory, submit, maker, row
):
    context.settings = context.settings.model_copy(update={"scorer": "torch", "point_steps": 2, "slice_seconds": 0.0})
    context.scorer = Slope()
    job = submit(method=methods.settings(name="first_order", learning_rate=1e-2))
    with factory.begin() as session:
        session.execute(update(Job).where(Job.id == job).values(autograd=False))  # for whoever comes
    run_slice(context)
    first = maker.make(job, 1)
    run_slice(context)
    assert row(job).step == 2
    assert maker.make(job, 2).params.tobytes() != first.params.tobytes()
    with pytest.raises(Unknown, match="no point after step 1"):
        maker.make(job, 1)


@pytest.mark.parametrize(
    ("name", "step"), [("ftjob-none", 0), (None, 5)], ids=["a job that is not there", "a step not taken"]
)
def test_what_is_not_there_is_unknown(stepped, maker, name, step):
    with pytest.raises(Unknown):
        maker.make(name or stepped(), step)


def test_what_was_deleted_or_lost_is_unknown(factory, published, stepped, maker):
    deleted, lost = published(), stepped()
    with factory.begin() as session:
        session.execute(update(Adapter).where(Adapter.job_id == deleted).values(deleted_at=Adapter.created_at))
        session.execute(delete(JournalStep).where(JournalStep.job_id == lost, JournalStep.step == 1))
    for job, step in ((deleted, STEPS), (deleted, 2), (lost, 3)):
        with pytest.raises(Unknown):
            maker.make(job, step)
    assert maker.make(lost, 1).params.any()


def test_who_keeps_an_adapter_in_memory_is_told_that_its_tenant_deleted_it(context, factory, published):
    job, told = published(), []
    context.heartbeat.deleted = told.append
    context.heartbeat.sweep()
    assert job not in told
    with factory.begin() as session:
        session.execute(update(Adapter).where(Adapter.job_id == job).values(deleted_at=func.now()))
    context.heartbeat.sweep()
    assert job in told


def refused(maker, job, step, what, says):
    with pytest.raises(Unfit, match=says) as refusal:
        maker.make(job, step)
    assert refusal.value.what == what


def test_another_base_and_a_rank_above_the_engines_are_refused(context, as_worker, base, stepped, maker):
    job = stepped(rank=4)
    elsewhere = Maker(as_worker, open_base("another", str(base)), 64, maker.snapshots)
    refused(elsewhere, job, 2, "base", "not another")
    refused(Maker(as_worker, context.base, 2, maker.snapshots), job, 2, "rank", "its rank is 4")


def test_a_linear_that_the_base_lacks_is_refused(maker, submit):
    job = submit(adapter=AdapterSpec(rank=2, alpha=2, targets=("w_pack",)))
    with pytest.raises(Unfit, match="no module 'w_pack'") as refusal:
        maker.make(job, 0)
    assert refusal.value.what == "targets"


def test_a_base_whose_files_have_changed_is_refused(factory, published, maker, context):
    job = published()
    with factory.begin() as session:
        receipt = session.scalars(select(Result.file_id).where(Result.job_id == job, Result.kind == "receipt")).one()
        told = json.loads(b"".join(files.read(session, receipt)))
    assert maker.make(job, STEPS)
    told["base"]["weights"] = "0" * 64
    with pytest.raises(Unfit, match="another weights now") as refusal:
        fit.on_base(json.dumps(told).encode(), base_files.hashed(context.base.path))
    assert refusal.value.what == "base"
    fit.on_base(b"no receipt", base_files.hashed(context.base.path))


def numbers(value):
    """Files whose weights have `value` among them."""

    def change(inside):
        from safetensors.numpy import load

        tensors = load(inside[peft_files.WEIGHTS])
        for tensor in tensors.values():
            tensor[:] = value
        return {peft_files.WEIGHTS: save(tensors, metadata={"format": "pt"})}

    return change


def lying(rank):
    def change(inside):
        from safetensors.numpy import load

        tensors = {name: np.zeros((rank, 8), np.float32) for name in load(inside[peft_files.WEIGHTS])}
        return {peft_files.WEIGHTS: save(tensors, metadata={"format": "pt"})}

    return change


def said(**fields):
    def change(inside):
        return {peft_files.CONFIG: json.dumps(json.loads(inside[peft_files.CONFIG]) | fields).encode()}

    return change


HEADER = (1 << 60).to_bytes(8, "little") + b"{}"


@pytest.mark.parametrize(
    ("change", "honest", "what", "says"),
    [
        (numbers(np.nan), True, "finite", "no finite numbers"),
        (numbers(np.inf), True, "finite", "no finite numbers"),
        (numbers(1e6), True, "norm", "has the norm"),
        (numbers(0.5), False, "hash", "as when they were published"),
        (lying(64), True, "file", "as its layout has it"),
        (said(r=64), True, "file", "its config says r 64"),
        (said(base_model_name_or_path="other"), True, "file", "base_model_name_or_path"),
        (said(alora_invocation_tokens=[1]), True, "file", "alora_invocation_tokens"),
        (said(layers_to_transform=[0]), True, "file", "layers_to_transform"),
        (lambda _: {peft_files.WEIGHTS: HEADER}, True, "file", "header"),
        (lambda _: {peft_files.WEIGHTS: b""}, True, "file", "header"),
        (lambda _: {peft_files.CONFIG: b"[1]"}, True, "file", "no object"),
        (lambda _: {"more": bytes(making.AROUND * 2)}, True, "file", "is longer than"),
    ],
)
def test_bytes_that_are_not_what_they_say_are_refused_by_name(factory, published, maker, change, honest, what, says):
    job = published()
    tampered(factory, job, change, honest)
    refused(maker, job, STEPS, what, says)
    assert maker.make(job, 1).params.any(), "its journal says what it was"


def test_what_is_no_archive_is_refused():
    with pytest.raises(Unfit, match="no PEFT directory"):
        fit.unpacked(b"\0" * 100, "", None, None)
