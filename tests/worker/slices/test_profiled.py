"""Jobs that read a profile, through slices: from its row, after a hand-over too, to the bit that the rows lead to."""

import pytest
from sqlalchemy import select

from db import profiles
from db.contract import methods
from db.contract.tokens.base_model import open_base
from db.tables import Adapter, Job
from db.tenant import restorations as asking
from db.worker import journal
from tests.profiled import KINDS, made, sha256
from tests.worker.slices.doubles import STEPS
from worker.adapters import peft_files
from worker.adapters.verify import verify
from worker.runs import profiles as files
from worker.runs import rebuilding, recipes
from worker.slices.loop import run_slice
from worker.slices.restoring import Restorer
from worker.types import Layout, Module


@pytest.fixture
def kept(factory, context):
    """The hash of a profile of this kind for a job's adapter."""

    def keep(kind):
        layout = Layout(2, 2.0, tuple(Module(*one) for one in context.base.select(("q_proj",))))
        data = made(kind, layout, context.base.fingerprint)
        found = files.read(data)
        with factory.begin() as session:
            profiles.add(session, found.of, found.told, data)
        return sha256(data)

    return keep


@pytest.mark.parametrize("name", KINDS)
def test_a_job_ends_with_what_its_journal_and_its_profile_lead_to(
    context, factory, submit, kept, base, urls, monkeypatch, as_worker, name
):
    method = methods.settings(name=name, eps=1e-2, learning_rate=1e-3, profile=kept(KINDS[name]))
    job = submit(2, method=method)
    context.settings = context.settings.model_copy(update={"slice_seconds": 0.0})
    slices = 0
    while run_slice(context):
        context.forget_all()  # what another worker has: the journal
        slices += 1
    with factory.begin() as session:
        assert session.get_one(Job, job).state == "succeeded"
        history = journal.history(session, job)
        adapter = session.scalars(select(Adapter).where(Adapter.job_id == job)).one()
        tenant = session.get_one(Job, job).tenant_id
    assert slices > 1
    point = rebuilding.rebuild(history, context.base)
    layout = recipes.layout(history.spec, context.base)
    assert adapter.sha256 == peft_files.sha256(peft_files.weights(layout, point.params))
    assert (adapter.step, history.step) == (STEPS, STEPS)

    monkeypatch.setenv("ONWARD_MODELS", f'{{"{context.model}": "{base}"}}')
    assert open_base(context.model, str(base)).fingerprint == context.base.fingerprint
    assert verify(urls.database_url, context.settings.home, job).ok

    with factory.begin() as session:
        asking.ask(tenant, session, asking.find(tenant, session, job, 3))
    assert Restorer(as_worker, context.settings, context.base, context.worker_id).turn()
    with factory.begin() as session:
        half = rebuilding.rebuild(journal.history(session, job, 3), context.base)
        assert asking.get(tenant, session, job, 3).sha256 == peft_files.sha256(peft_files.weights(layout, half.params))
